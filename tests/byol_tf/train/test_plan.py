"""Schedules, batches and plans, with steps and rates computed by hand."""

import json
import os
import resource
from types import SimpleNamespace

import pytest
from PIL import Image

from byol_tf.config.loading import load_config
from byol_tf.config.schedule import Schedule, check_batch, method_name, training_schedule
from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError
from byol_tf.models.from_config import Sizes
from byol_tf.runs.folder import RunFolder
from byol_tf.train.plan import format_lines, make_plan, plan_lines
from pipelines.sources import open_source, plan_source

SIZES = Sizes({"encoder": 1}, checkpoint=200_000_000, encoder=40_000_000)


def config(**changes) -> Config:
    """A small valid config with sections replaced."""
    base = {
        "name": "x",
        "data": {"source": "digits"},
        "views": {"size": 32},
        "optimizer": {"base_learning_rate": 0.3, "warmup_epochs": 1.5},
        "training": {"epochs": 10, "batch_size": 128},
    }
    return Config.model_validate_json(json.dumps(base | changes))


def test_schedule_counts_full_batches_and_scales_the_rate():
    assert training_schedule(config(), 1000) == Schedule(
        steps_per_epoch=7, total_steps=70, warmup_steps=10, peak_rate=0.15
    )


def test_plan_warns_of_few_own_photos_unless_the_encoder_starts_from_others(tmp_path):
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    folder = {"source": "folder", "root": str(tmp_path)}
    schedule, run = Schedule(1, 1, 0, 0.1), RunFolder(tmp_path / "run")

    def warnings(**changes) -> list[str]:
        chosen = config(**{"data": folder} | changes)
        source = plan_source(chosen.data.source, root=chosen.data.root)
        lines = plan_lines(chosen, source, schedule, SIZES, run)
        return [text for subject, text in lines if subject == "warning"]

    assert warnings()[0].startswith("3 photos are few to train an encoder on.")
    assert warnings(encoder={"weights": "imagenet", "name": "keras.applications/ResNet50"}) == []
    assert warnings(data={"source": "digits"}) == []


@pytest.mark.parametrize(
    ("accumulation", "replicas", "workers", "message"),
    [
        (1, 3, 3, "expected a multiple of 3, as there are 3 devices on 3 machines; received 128"),
        (1, 6, 2, "expected a multiple of 6, as there are 6 devices on 2 machines; received 128"),
        (1, 3, 1, "expected a multiple of 3, as there are 3 devices; received 128"),
        (
            64,
            4,
            2,
            r"expected a multiple of 256, as there are 4 devices on 2 machines x training.gradient_accumulation_steps \(64\); received 128",
        ),
    ],
)
def test_batch_must_divide_among_devices(accumulation, replicas, workers, message):
    chosen = config(
        training={"epochs": 10, "batch_size": 128, "gradient_accumulation_steps": accumulation}
    )
    with pytest.raises(ConfigError, match=f"^training.batch_size: {message}$"):
        check_batch(chosen, replicas, workers)
    check_batch(chosen, 2, workers=2)


def test_rate_without_reference_batch_is_not_scaled():
    unscaled = config(optimizer={"base_learning_rate": 0.3, "reference_batch_size": None})
    assert training_schedule(unscaled, 1000).peak_rate == 0.3


def test_learning_rate_of_the_byol_paper():
    """BYOL on ImageNet at batch 4096: 0.2 x 4096 / 256 = 3.2 (BYOL paper, section 3.3)."""
    paper = config(
        optimizer={"base_learning_rate": 0.2}, training={"epochs": 1000, "batch_size": 4096}
    )
    assert training_schedule(paper, 1_281_167).peak_rate == pytest.approx(3.2)


def test_networks_larger_than_memory_are_refused_and_not_built(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for changes in (
        {"encoder": {"width": 1000}},
        {"projector": {"hidden_size": 10**6, "output_size": 10**6}},
        {"predictor": {"hidden_size": 10**6}, "projector": {"output_size": 10**6}},
    ):
        with pytest.raises(ConfigError, match=r"^encoder.width, .* of memory here; .* GB"):
            make_plan(config(**changes), RunFolder(tmp_path))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 300, f"{grown:.0f} MB"


def test_batch_larger_than_the_images_is_refused():
    with pytest.raises(
        ConfigError, match="expected at most the number of pre-training images, 100; received 128"
    ):
        training_schedule(config(), 100)


@pytest.mark.parametrize(
    ("tau", "text"),
    [
        ({"schedule": "constant", "base": 0.999}, "0.999 throughout"),
        ({"schedule": "cosine", "base": 0.99}, "0.99 to 1, cosine"),
        ({"schedule": "inverse_cosine", "base": 0.999}, "0.999 to 0.5, inverse cosine"),
        ({"schedule": "drop", "base": 0.999}, "0.999, and 0 after 25% of the steps"),
    ],
)
def test_plan_shows_tau_schedule(tau, text, tmp_path):
    chosen = config(tau=tau)
    lines = plan_lines(
        chosen,
        plan_source("digits", seed=0),
        training_schedule(chosen, 1437),
        SIZES,
        RunFolder(tmp_path),
    )
    assert ("tau", text) in lines


@pytest.mark.parametrize(
    ("changes", "subject", "text"),
    [
        ({}, "objective", "cosine, both directions, target ema"),
        ({"objective": {"target": "online"}}, "tau", "none, the online network is its own target"),
        (
            {
                "objective": {
                    "target": "online_with_gradient",
                    "negatives": 1,
                    "temperature": 0.1,
                    "weight": 2.5,
                }
            },
            "objective",
            "cosine, both directions, target online with gradient, negatives 1 at temperature 0.1, "
            "weight 2.5",
        ),
        (
            {"objective": {"similarity": "cross_entropy", "symmetrization": "asymmetric_2x"}},
            "objective",
            "cross-entropy, one direction, two pairs of views, target ema",
        ),
        ({}, "normalization", "batch"),
        (
            {"encoder": {"normalization": "group"}},
            "normalization",
            "encoder group, projector batch, predictor batch",
        ),
        (
            {"encoder": {"normalization": "none"}, "predictor": {"kind": "none"}},
            "normalization",
            "encoder none, projector batch",
        ),
        (
            {"predictor": {"schedule": "constant", "learning_rate_multiplier": 10}},
            "optimizer",
            "adam, learning rate 0.15, cosine after 16 warm-up steps (predictor 1.5, constant), "
            "weight decay 0",
        ),
    ],
)
def test_plan_shows_objective_normalization_and_optimizer(changes, subject, text, tmp_path):
    chosen = config(**changes)
    lines = plan_lines(
        chosen,
        plan_source("digits", seed=0),
        training_schedule(chosen, 1437),
        SIZES,
        RunFolder(tmp_path),
    )
    assert (subject, text) in lines


@pytest.mark.parametrize(
    ("name", "overrides", "text"),
    [
        ("demo", [], "configs/demo.json, unchanged"),
        ("demo", ["run.root=elsewhere"], "configs/demo.json, unchanged"),
        (
            "demo",
            ["tau.base=0.9", "training.epochs=3"],
            "configs/demo.json with tau.base 0.9 instead of 0.99, training.epochs 3 instead of 24",
        ),
        (
            "photos",
            [
                "data.root=/a/long/way/to/the/photos",
                "seed=1",
                "tau.base=0.9",
                "tau.end=0.99",
                "views.exact=true",
                "views.engine=fused",
            ],
            'configs/photos.json with data.root "/a/long/way/to/the/pho… instead of "photos", seed '
            "1 instead of 0, tau.base 0.9 instead of 0.99, "
            "tau.end 0.99 instead of null and 2 more",
        ),
    ],
)
def test_plan_shows_differences_from_the_recipe(name, overrides, text, tmp_path):
    chosen = load_config(name, overrides)
    lines = plan_lines(
        chosen,
        plan_source("digits", seed=0),
        training_schedule(chosen, 1437),
        SIZES,
        RunFolder(tmp_path),
    )
    assert lines[0] == ("recipe", text)


def test_plan_as_text(tmp_path):
    plan = make_plan(load_config("demo", []), RunFolder(tmp_path / "run"))
    assert plan.schedule.total_steps == 24 * (8000 // 128)
    title, first, *_ = str(plan).splitlines()
    assert title == "demo"
    assert first == "  recipe        configs/demo.json, unchanged"
    assert format_lines([("", "a note")]) == "                a note"
    assert list(tmp_path.iterdir()) == []


class TestDisk:
    def lines(self, monkeypatch, root, free: int, **changes) -> list[str]:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
        chosen, folder = config(**changes), RunFolder(root / "runs" / "x")
        lines = plan_lines(
            chosen, plan_source("digits", seed=0), training_schedule(chosen, 1437), SIZES, folder
        )
        return [text for subject, text in lines if subject in ("disk", "warning")]

    def test_needed_and_free_space(self, monkeypatch, tmp_path):
        parts = "in checkpoints of 200.0 MB and an encoder of 40.0 MB; 2.5 GB are free there"
        assert self.lines(monkeypatch, tmp_path, 2_500_000_000) == [
            f"at most 1.1 GB, {parts}"
        ]  # 3 newest, the best, and the next one
        assert self.lines(monkeypatch, tmp_path, 2_500_000_000, run={"keep_checkpoints": 2}) == [
            f"at most 880.0 MB, {parts}"
        ]

    def test_warning_counts_what_is_written_already(self, monkeypatch, tmp_path):
        _, warning = self.lines(monkeypatch, tmp_path, 1_000_000_000)
        assert warning.startswith(
            f"the run folder's disk may fill up: 1.1 GB to be written, 1.0 GB free in {tmp_path}. "
        )
        checkpoint = tmp_path / "runs" / "x" / "checkpoints" / "epoch-0001" / "arrays.npz"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
        os.truncate(checkpoint, 200_000_000)
        assert len(self.lines(monkeypatch, tmp_path, 1_000_000_000)) == 1


@pytest.mark.parametrize(
    ("recipe", "changes", "system"),
    [
        ("stl10", [], "BYOL"),
        ("imagenet-gn-ws", [], "BYOL"),
        ("imagenet-simsiam", [], "SimSiam"),
        ("imagenet-simclr", [], "SimCLR"),
        ("stl10", ["predictor.kind=none"], "trained"),
        ("stl10", ["predictor.kind=fixed"], "trained"),
        ("stl10", ["objective.negatives=0.5", "objective.temperature=0.1"], "BYOL with negatives"),
        ("few-photos", [], "BYOL with negatives"),
    ],
)
def test_method_name_needs_every_part_of_the_method(recipe, changes, system):
    assert method_name(load_config(recipe, changes)) == system


def test_plan_of_a_resumed_run_is_of_its_own_photos(tmp_path):
    photos, folder = tmp_path / "photos", RunFolder(tmp_path / "run")
    photos.mkdir()
    for number in range(60):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(photos / f"{number}.png")
        if number == 49:
            source = open_source("folder", root=str(photos))
    chosen = config(
        data={"source": "folder", "root": str(photos), "image_size": 32},
        encoder={"name": "convnet"},
        projector={"hidden_size": 16, "output_size": 8},
        predictor={"hidden_size": 16},
        training={"epochs": 1, "batch_size": 16},
        optimizer={"base_learning_rate": 0.1},
    )
    new = make_plan(chosen, folder)
    assert ("training", "1 epoch of 3 steps of 16 images: 3 steps") in new.lines
    assert "resumes" not in dict(new.lines)
    (folder.checkpoints / "epoch-0000-step-000001").mkdir(parents=True)
    folder.photos.write_bytes(source.manifest.to_bytes())
    resumed = dict(make_plan(chosen, folder).lines)
    assert "50 for pre-training" in resumed["images"]
    assert resumed["resumes"] == "after epoch 0 of 1, step 1 of 3 in the next; 2 steps left"
    notes = [text for subject, text in make_plan(chosen, folder).lines if not subject]
    note = "10 photo(s) have come since the run was started, and aren't used; a new run uses them"
    assert note in notes
