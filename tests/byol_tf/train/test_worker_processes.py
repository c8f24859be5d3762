"""Two workers, processes of the real command that are connected over loopback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_tf.runs.checkpoints import list_checkpoints, position_of, read_newest
from tests.helpers.shard_files import jpeg, serving, tar
from tests.helpers.workers import ROOT, run_workers

# LARS, since Adam turns the rounding error of a zero gradient into a step as long as its rate; and
# a small rate, since a large one flips the sign of an activation within a few steps.
OVERRIDES = [
    "data.pretrain_images=96",
    "encoder.width=0.25",
    "projector.hidden_size=32",
    "projector.output_size=16",
    "predictor.hidden_size=32",
    "objective.negatives=0.5",  # so that the objective needs the other worker's images
    "objective.temperature=0.3",
    "optimizer.name=lars",
    "optimizer.base_learning_rate=0.05",
    "optimizer.warmup_epochs=0",
    "training.batch_size=32",
    "training.epochs=2",
    "probe.every_epochs=2",
    "probe.supervised=false",
    "probe.train_images=50",
    "probe.test_images=50",
    "run.report=false",
    "run.checkpoint_every_steps=1",  # within epochs too, as far as writing keeps up
]


def command(runs: Path, strategy: str, *overrides: str) -> list[str]:
    """The command that trains a small network on the embedded images for six steps."""
    settings = [*OVERRIDES, f"devices.strategy={strategy}", f"run.root={runs}", *overrides]
    config = ["--config", str(ROOT / "configs" / "demo.json")]
    options = [option for setting in settings for option in ("--set", setting)]
    return [sys.executable, "-m", "byol_tf.train", *config, *options]


def train(*commands: list[str]) -> list[subprocess.CompletedProcess]:
    """Runs the workers, none of which should fail."""
    processes = run_workers(*commands)
    for process in processes:
        assert process.returncode == 0, process.stderr
    return processes


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, list[subprocess.CompletedProcess]]:
    """Folder and processes of a run of two workers, each with a run root of its own."""
    folder = tmp_path_factory.mktemp("pair")
    return folder, train(
        command(folder / "chief", "multi_worker"), command(folder / "other", "multi_worker")
    )


def arrays(runs: Path) -> dict[str, np.ndarray]:
    """The variables at the end of the only run under a root."""
    (run,) = runs.iterdir()
    checkpoint, damaged = read_newest(run / "checkpoints")
    assert checkpoint.epoch == 2
    assert not damaged
    return checkpoint.arrays


def largest_difference(expected: dict[str, np.ndarray], actual: dict[str, np.ndarray]) -> float:
    """Difference of all variables and momenta, relative to the largest number of each.

    Without biases before a batch normalisation, whose gradient is 0 but for rounding.
    """
    assert set(expected) == set(actual)
    names = [name for name in expected if "hidden/bias" not in name and "hidden_bias" not in name]
    assert 60 < len(names) < len(expected)
    return max(
        np.abs(expected[name] - actual[name]).max() / max(np.abs(expected[name]).max(), 1e-2)
        for name in names
    )


def test_two_workers_learn_what_one_learns(pair, tmp_path, monkeypatch):
    import keras

    from byol_tf.train import experiment, finish
    from byol_tf.train.__main__ import main

    # Figures and export, which change nothing that is learned, take longer than the six steps.
    monkeypatch.setattr(experiment, "ViewPictures", lambda *_: keras.callbacks.Callback())
    for name in ("curves_figure", "export_encoder", "write_card"):
        monkeypatch.setattr(finish, name, lambda *_: None)
    folder, _ = pair
    assert main(command(tmp_path / "single", "cpu")[3:]) == 0
    assert largest_difference(arrays(tmp_path / "single"), arrays(folder / "chief")) < 1e-5


def test_only_the_chief_writes_and_reports(pair):
    folder, (chief, other) = pair
    assert not (folder / "other").exists()
    assert [path.name for path in folder.iterdir()] == ["chief"]
    result = json.loads(chief.stdout.splitlines()[-1])
    run_dir = Path(result["run_dir"])
    assert (result["epochs"], result["steps"]) == (2, 6)
    assert json.loads((run_dir / "result.json").read_text()) == result
    for name in (
        "config.json",
        "history.csv",
        "figures/views.png",
        "figures/curves.png",
        "export/encoder/1/saved_model.pb",
    ):
        assert (run_dir / name).stat().st_size > 100, name
    assert len(list((run_dir / "logs").glob("events.out.tfevents.*"))) == 1
    assert not list(run_dir.rglob("*.part*"))
    (line,) = (line for line in other.stdout.splitlines() if "has waited" not in line)
    assert line.startswith("demo: worker 2 of 2; the chief, 127.0.0.1:")
    assert line.endswith("reports and writes; the workers are those of TF_CONFIG")


@pytest.mark.long
def test_photos_that_any_worker_cannot_read_are_listed_by_the_chief(tmp_path):
    draw, photos = np.random.default_rng(0), tmp_path / "photos"
    photos.mkdir()
    for number in range(800):  # of which the chief measures 512 before training
        path = photos / f"{number:03d}.jpg"
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
        if number % 20 == 3:
            path.write_bytes(path.read_bytes()[:-400])
    settings = (
        "data.source=folder",
        f"data.root={photos}",
        "data.pretrain_images=null",
        "data.max_unreadable_fraction=0.2",
        "training.epochs=1",
    )
    chief, other = train(
        *(command(tmp_path / name, "multi_worker", *settings) for name in ("chief", "other"))
    )
    assert "can't be read: image file is truncated" in chief.stdout
    assert "can't be read: image file is truncated" in other.stdout
    (run_dir,) = (tmp_path / "chief").glob("demo-*")
    listed = [line.split(",")[0] for line in (run_dir / "skipped.csv").read_text().splitlines()]
    assert sorted(listed[1:]) == [f"{number:03d}.jpg" for number in range(3, 800, 20)]


@pytest.mark.long
def test_workers_that_share_a_disk_index_remote_shards_once(tmp_path):
    (tmp_path / "www").mkdir()
    for shard in range(3):
        images = {f"{n}.jpg": jpeg(n, size=(40, 40)) for n in range(shard * 40, shard * 40 + 40)}
        (tmp_path / "www" / f"photos-{shard}.tar").write_bytes(tar(images))
    with serving(tmp_path / "www") as server:
        settings = (
            "data.source=shards",
            f"data.root={server.url}/photos-{{0..2}}.tar",
            "data.pretrain_images=null",
            "data.cache=none",
            "training.epochs=1",
        )
        words = command(tmp_path / "runs", "multi_worker", *settings)
        chief, _ = train(words, words)
        whole = [each for each in server.requests if (each[2] or "").startswith("bytes=0-")]
    assert json.loads(chief.stdout.splitlines()[-1])["steps"] == 3
    assert len(whole) == 3  # an index begins with the first header, of which no image is part


@pytest.mark.long
def test_workers_resume_from_the_chiefs_checkpoint_until_finished(pair, tmp_path):
    folder, _ = pair
    shutil.copytree(folder / "chief", tmp_path / "chief")
    (run_dir,) = (tmp_path / "chief").iterdir()
    shutil.rmtree(run_dir / "checkpoints" / "epoch-0002")
    (run_dir / "result.json").unlink()
    epoch, step = position_of(list_checkpoints(run_dir / "checkpoints")[-1])
    commands = (
        command(tmp_path / "chief", "multi_worker"),
        command(tmp_path / "other", "multi_worker"),
    )
    chief, _ = train(*commands)
    assert epoch == 1
    assert (
        "resuming after epoch 1 of 2" + (f", step {step} of 3 in the next" if step else "")
        in chief.stdout
    )
    assert " 0/2 " not in chief.stdout
    assert largest_difference(arrays(tmp_path / "chief"), arrays(folder / "chief")) < 1e-5
    chief, _ = train(*commands)
    assert "this run is finished" in chief.stdout
    assert "Epoch" not in chief.stdout
    assert not (tmp_path / "other").exists()


@pytest.mark.long
def test_incompatible_workers_all_exit_with_the_error(tmp_path):
    """None waits for ever, and nothing is written."""
    runs = tmp_path / "runs"
    for overrides, message in (
        (
            (["seed=0"], ["seed=1"]),
            "expected the same config on each worker; worker 2 has another one than the first",
        ),
        (
            (["training.batch_size=33"],) * 2,
            "training.batch_size: expected a multiple of 2, as there are 2 devices on 2 machines; "
            "received 33",
        ),
    ):
        commands = [command(runs, "multi_worker", *settings) for settings in overrides]
        for process in run_workers(*commands):
            assert process.returncode == 2, process.stderr
            assert message in process.stderr
    assert not runs.exists()


@pytest.mark.long
def test_workers_stop_early_together(tmp_path):
    stop = [
        "probe.split=held_out",
        "probe.every_epochs=1",
        "monitor.early_stopping=1",
        "monitor.min_delta=1.0",
    ]
    chief, _ = train(
        command(tmp_path / "chief", "multi_worker", *stop, "training.epochs=4"),
        command(tmp_path / "other", "multi_worker", *stop, "training.epochs=4"),
    )
    assert json.loads(chief.stdout.splitlines()[-1])["epochs"] == 2
