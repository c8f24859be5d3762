"""Tests of the recipes: they load, have the papers' numbers and state what to expect."""

import json
from pathlib import Path

import pytest

from byol_tf.config.docs import schema_json
from byol_tf.config.loading import load_config, recipes, resolved_json
from byol_tf.config.schema import Objective

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_list_of_recipes():
    assert recipes() == [
        "adapt",
        "cifar10",
        "demo",
        "distill",
        "few-photos",
        "few-photos-byol",
        "imagenet-100",
        "imagenet-1000",
        "imagenet-300",
        "imagenet-gn-ws",
        "imagenet-modified-init",
        "imagenet-simclr",
        "imagenet-simsiam",
        "imagenette",
        "photos",
        "stl10",
    ]


@pytest.mark.parametrize("name", recipes())
class TestEachRecipe:
    def test_about_is_filled_in(self, name):
        about = load_config(name).about
        assert about is not None
        assert all(
            len(text) > 10
            for text in (about.reproduces, about.hardware, about.time, about.accuracy)
        )

    def test_name_is_the_file_name(self, name):
        assert load_config(name).name == name

    def test_names_the_schema_for_editors(self, name):
        assert json.loads((CONFIGS / f"{name}.json").read_text())["$schema"] == "schema.json"

    def test_resolved_config_loads_equal(self, name, tmp_path):
        config = load_config(name)
        resolved = tmp_path / "config.json"
        resolved.write_text(resolved_json(config), encoding="utf-8")
        assert load_config(resolved) == config


def effective_rate(config):
    reference = config.optimizer.reference_batch_size or config.training.batch_size
    return config.optimizer.base_learning_rate * config.training.batch_size / reference


@pytest.mark.long  # tests/docs runs those that the documentation names
@pytest.mark.parametrize("name", recipes())
def test_dry_run_of_each_recipe(name, tmp_path, capsys, monkeypatch):
    """The real command with the recipe, but for narrow networks and generated photos."""
    from PIL import Image

    from byol_tf import build_encoder, export_encoder, inference_model
    from byol_tf.train.__main__ import main

    monkeypatch.chdir(tmp_path)
    sizes = ["encoder.width=0.25", "projector.hidden_size=64", "predictor.hidden_size=64"]
    if load_config(name).encoder.weights is not None:  # of a network that isn't narrow
        sizes += ["encoder.name=convnet", "encoder.weights=null"]
    if load_config(name).objective.target == "teacher":
        encoder = build_encoder("convnet", 16, width=0.25)
        inference = inference_model(encoder, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        export_encoder(inference, tmp_path / "own" / "teacher")
        sizes.append("objective.teacher=own/teacher")
    if load_config(name).data.source == "folder":
        for class_folder in ("train/cat", "train/dog", "test/cat", "test/dog"):
            (tmp_path / "own" / class_folder).mkdir(parents=True)
            for number in range(70):
                Image.new("RGB", (160, 160), (number, 0, 0)).save(
                    tmp_path / "own" / class_folder / f"{number}.png"
                )
        # Input and step are measured too; test_from_config.py makes a step with each recipe's own
        # network.
        sizes += ["data.root=own", "training.batch_size=64", "encoder.name=convnet"]
    changes = [word for size in sizes for word in ("--set", size)]
    assert main(["--config", name, *changes, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "dry run: nothing was written" in printed
    assert {"images", "network", "normalization", "optimizer", "objective", "tau"} <= {
        line.split()[0] for line in printed.splitlines() if line
    }
    assert {path.name for path in tmp_path.iterdir()} <= {"own"}


def heads(config):
    """Returns the widths of the projector's hidden layer and output, and the predictor's."""
    return config.projector.hidden_size, config.projector.output_size, config.predictor.hidden_size


def test_stl10_has_the_numbers_of_section_3_4():
    config = load_config("stl10")
    assert heads(config) == (4096, 256, 4096)
    assert (config.encoder.name, config.predictor.kind) == ("resnet18", "mlp")
    assert (config.optimizer.name, config.optimizer.schedule, config.optimizer.warmup_epochs) == (
        "adam",
        "constant",
        0,
    )
    assert effective_rate(config) == pytest.approx(1e-4 * 1024 / 128)
    assert config.optimizer.weight_decay == 1e-6
    assert (config.tau.schedule, config.tau.base) == ("constant", 0.999)
    assert (config.training.epochs, config.training.batch_size) == (75, 1024)
    assert (config.data.source, config.data.pretrain, config.data.pretrain_images) == (
        "stl10",
        "unlabelled",
        None,
    )  # all 100,000
    assert (config.views.size, config.views.preset) == (96, "stl10")
    assert config.views.first == config.views.second
    assert config.devices.precision != "float32"  # "mixed precision"


def test_stl10_has_its_authors_code_where_the_paper_names_nothing():
    """zhihua-zhang/BYOL `models.py`, `mlp` and `configure_optimizers`; torchvision's ResNet-18."""
    config = load_config("stl10")
    assert config.projector.output_bias
    assert config.predictor.output_bias
    assert not config.optimizer.exclude_norm_and_bias
    assert (config.encoder.padding, config.encoder.zero_init_residual) == ("symmetric", False)


@pytest.mark.parametrize(
    ("name", "epochs", "base_rate", "decay", "tau", "warmup", "normalization"),
    [
        ("imagenet-100", 100, 0.45, 1e-6, 0.99, 10, "batch"),
        ("imagenet-300", 300, 0.3, 1e-6, 0.99, 10, "batch"),
        ("imagenet-1000", 1000, 0.2, 1.5e-6, 0.996, 10, "batch"),
        ("imagenet-gn-ws", 1000, 0.24, 3e-8, 0.999, 10, "group"),
        ("imagenet-modified-init", 1000, 0.2, 1.5e-6, 0.996, 50, "data_init"),
    ],
)
def test_imagenet_recipes_have_the_authors_presets(
    name, epochs, base_rate, decay, tau, warmup, normalization
):
    config = load_config(name)
    assert (config.encoder.name, config.encoder.width, config.encoder.stem) == (
        "resnet50",
        1,
        "7x7",
    )
    assert heads(config) == (4096, 256, 4096)
    assert {
        part.normalization for part in (config.encoder, config.projector, config.predictor)
    } == {normalization}
    assert (config.optimizer.name, config.optimizer.schedule, config.optimizer.momentum) == (
        "lars",
        "cosine",
        0.9,
    )
    assert effective_rate(config) == pytest.approx(base_rate * 4096 / 256)
    assert (config.optimizer.weight_decay, config.optimizer.warmup_epochs) == (decay, warmup)
    assert (config.tau.schedule, config.tau.base, config.tau.resolved_end) == ("cosine", tau, 1.0)
    assert config.objective == Objective()
    assert (config.training.epochs, config.training.batch_size) == (epochs, 4096)
    assert (config.views.size, config.data.image_size) == (224, None)
    assert_byols_views(config)


def assert_byols_views(config):
    first, second = config.views.first, config.views.second
    assert (first.blur_probability, second.blur_probability) == (1.0, 0.1)
    assert (first.solarize_probability, second.solarize_probability) == (0.0, 0.2)
    for view in (first, second):
        assert (view.brightness, view.contrast, view.saturation, view.hue) == (0.4, 0.4, 0.2, 0.1)
        assert (view.jitter_probability, view.grayscale_probability, view.flip_probability) == (
            0.8,
            0.2,
            0.5,
        )
        assert view.crop_area == (0.08, 1.0)
        assert view.crop_aspect == pytest.approx((0.75, 1.3333), abs=1e-4)


def test_imagenette_has_deepminds_preset_for_fast_iteration():
    config = load_config("imagenette")
    assert (config.encoder.name, config.views.size, config.data.pretrain) == (
        "resnet18",
        128,
        "train",
    )
    assert heads(config) == (4096, 256, 4096)
    assert (config.optimizer.name, effective_rate(config), config.optimizer.weight_decay) == (
        "lars",
        2.0,
        1e-6,
    )
    assert (config.tau.base, config.training.epochs, config.training.batch_size) == (
        0.996,
        1000,
        256,
    )
    assert_byols_views(config)


def test_simsiam_has_the_numbers_of_the_report():
    config = load_config("imagenet-simsiam")
    assert heads(config) == (2048, 2048, 512)
    assert (
        config.projector.num_layers,
        config.projector.normalize_output,
        config.predictor.normalize_output,
    ) == (3, True, False)
    assert (config.optimizer.name, config.optimizer.momentum, config.optimizer.weight_decay) == (
        "sgd",
        0.9,
        1e-4,
    )
    assert effective_rate(config) == pytest.approx(0.05 * 2)
    assert (config.optimizer.schedule, config.predictor.schedule) == ("cosine", "constant")
    assert (
        config.objective.target,
        config.objective.symmetrization,
        config.objective.similarity,
    ) == (
        "online",
        "symmetric",
        "cosine",
    )
    assert config.objective.weight == 0.25  # 2 - 2 cos, both added -> half the sum of -cos
    # facebookresearch/simsiam `simsiam/builder.py` and `main_simsiam.py`
    assert (config.encoder.padding, config.encoder.zero_init_residual) == ("symmetric", True)
    assert (config.projector.output_scale, config.projector.output_center) == (False, False)
    assert (config.projector.output_bias, config.predictor.output_bias) == (False, True)
    assert not config.optimizer.exclude_norm_and_bias
    assert (config.training.epochs, config.training.batch_size) == (100, 512)
    assert config.views.first == config.views.second
    assert config.views.first.crop_area == (0.2, 1.0)


def test_simclr_has_negatives_no_predictor_no_target_network():
    config = load_config("imagenet-simclr")
    assert (config.predictor.kind, config.objective.target) == ("none", "online_with_gradient")
    assert (config.objective.negatives, config.objective.temperature) == (1.0, 0.1)
    # google-research/simclr `tf2/objective.py`, `tf2/resnet.py` and `tf2/model.py`
    assert config.objective.weight == pytest.approx(1.0 / (2.0 * config.objective.temperature))
    assert (config.encoder.padding, config.encoder.zero_init_residual) == ("symmetric", True)
    assert (config.projector.output_scale, config.projector.output_center) == (True, False)
    assert config.training.joint_batch_statistics
    assert config.optimizer.exclude_norm_and_bias
    view = config.views.first
    assert view == config.views.second
    assert (view.brightness, view.contrast, view.saturation, view.hue, view.blur_probability) == (
        0.8,
        0.8,
        0.8,
        0.2,
        0.5,
    )


def test_cifar10_has_the_numbers_of_garder14():
    config = load_config("cifar10")
    assert (config.encoder.name, config.encoder.stem) == ("resnet18", "3x3")
    assert heads(config) == (256, 128, 256)
    assert config.optimizer.name == "adam"
    assert effective_rate(config) == pytest.approx(1e-3)
    assert config.tau.base == 0.99
    assert (config.training.epochs, config.training.batch_size, config.views.size) == (200, 512, 32)
    assert config.views.first == config.views.second
    assert config.views.first.blur_probability == config.views.first.solarize_probability == 0
    assert config.about.measured == "no"  # its schedules differ from the source's


def test_demo_needs_no_download_and_no_accelerator():
    config = load_config("demo")
    assert config.data.source == "textures"
    assert config.encoder.name == "convnet"
    assert config.devices.precision == "float32"
    assert config.views.first.crop_area == config.views.second.crop_area == (0.2, 1.0)


def test_photos_takes_a_folder():
    config = load_config("photos", ["data.root=holiday"])
    assert (config.data.source, config.data.root) == ("folder", "holiday")
    assert config.views.size <= config.data.image_size


def test_schema_file_is_up_to_date():
    # Update: python -c "from byol_tf.config.docs import schema_json; print(schema_json(), end='')"
    # > configs/schema.json
    assert (CONFIGS / "schema.json").read_text() == schema_json()
