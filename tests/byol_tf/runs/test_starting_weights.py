"""Weights that an encoder starts from: run folders, `.weights.h5` and Keras' own."""

import h5py
import keras
import numpy as np
import pytest

from byol_tf.config.loading import absolute_paths, load_config
from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError
from byol_tf.export.saved_model import export_encoder
from byol_tf.models.from_config import build_config_encoder, build_model
from byol_tf.models.inference import inference_model, plain_encoder
from byol_tf.runs.starting_weights import start_from, starting_weights
from tests.helpers.small_run import CONFIG

APPLICATION = CONFIG | {
    "encoder": {"name": "keras.applications/MobileNetV3Small", "weights": "imagenet"}
}


@pytest.fixture(scope="module")
def run(copied_run, tmp_path_factory):
    """A run folder with a checkpoint, and its encoder's weights by layer."""
    folder = copied_run(tmp_path_factory.mktemp("runs") / "run")
    exported = keras.models.load_model(folder.export / "encoder.keras").get_layer("convnet")
    return folder, {layer.name: layer.get_weights() for layer in exported.layers if layer.weights}


def assert_same(weights, expected):
    assert weights.keys() == expected.keys()
    for name, arrays in weights.items():
        for ours, theirs in zip(arrays, expected[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_run_folder_gives_the_encoder_of_its_newest_checkpoint(run):
    folder, expected = run
    config = Config.model_validate(CONFIG)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        weights = starting_weights(str(folder.root), build_config_encoder(config), config)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert_same(weights, expected)


def test_run_of_another_encoder_or_without_checkpoint_is_an_error(run, tmp_path):
    config = Config.model_validate(CONFIG | {"encoder": {"name": "convnet", "width": 0.5}})
    with pytest.raises(ConfigError, match=r"encoder.weights: .*run: .*layers have other shapes"):
        starting_weights(str(run[0].root), build_config_encoder(config), config)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(run[0].config.read_text())
    with pytest.raises(ConfigError, match=r"encoder.weights: .*expected a valid checkpoint"):
        starting_weights(str(tmp_path), build_config_encoder(config), config)


def unnamed_layers():
    x = inputs = keras.Input((16, 16, 3))
    for stride in (2, 1):
        x = keras.layers.Conv2D(4, 3, stride)(x)
        x = keras.layers.BatchNormalization()(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


def test_layers_without_names_are_found_under_other_counters(tmp_path):
    config = Config.model_validate(CONFIG)
    saved, encoder = unnamed_layers(), unnamed_layers()
    export_encoder(inference_model(saved, 16, config.views.mean, config.views.std), tmp_path)
    weights = starting_weights(str(tmp_path), encoder, config)
    for name, arrays in weights.items():
        encoder.get_layer(name).set_weights(arrays)
    for ours, theirs in zip(encoder.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("form", [lambda encoder: encoder, plain_encoder])
def test_weights_file_gives_the_encoder_that_saved_it(form, run, tmp_path):
    config = Config.model_validate(CONFIG)
    encoder = build_config_encoder(config)
    for name, arrays in run[1].items():
        encoder.get_layer(name).set_weights(arrays)
    form(encoder).save_weights(tmp_path / "encoder.weights.h5")
    fresh = build_config_encoder(config)
    assert_same(starting_weights(str(tmp_path / "encoder.weights.h5"), fresh, config), run[1])


def test_weights_file_of_something_else_is_an_error(tmp_path):
    config = Config.model_validate(CONFIG)
    encoder = build_config_encoder(config)
    other = tmp_path / "other.weights.h5"
    build_config_encoder(
        Config.model_validate(CONFIG | {"encoder": {"name": "convnet", "width": 0.5}})
    ).save_weights(other)
    linked, broken = tmp_path / "linked.weights.h5", tmp_path / "broken.weights.h5"
    with h5py.File(linked, "w") as file:
        file["layers"] = h5py.ExternalLink(other, "/layers")
    broken.write_bytes(b"no HDF5")
    twice = tmp_path / "twice.weights.h5"
    with h5py.File(twice, "w") as file:
        file["a/layers"] = np.zeros(3)
        file["b"] = file["a"]
    for path, reason in (
        (other, ""),
        (linked, "are a link to other data"),
        (twice, "have more than one place"),
        (broken, "it isn't an HDF5 file"),
    ):
        with pytest.raises(
            ConfigError,
            match=rf"encoder.weights: {path}: expected what save_weights wrote.*{reason}",
        ):
            starting_weights(str(path), encoder, config)


def test_pytorch_file_is_an_error_that_names_convert(tmp_path):
    config = Config.model_validate(CONFIG)
    (tmp_path / "x.pth").write_bytes(b"")
    with pytest.raises(ConfigError, match="convert pytorch makes one of it"):
        starting_weights(str(tmp_path / "x.pth"), build_config_encoder(config), config)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Keras' cache in a folder of its own, and no network."""
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))

    def no_network(url, *_, **__):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", no_network)
    return tmp_path / "models"


def test_imagenet_without_network_names_file_folder_and_url(cache):
    config = Config.model_validate(APPLICATION)
    with pytest.raises(ConfigError) as error:
        starting_weights("imagenet", build_config_encoder(config), config)
    message = str(error.value)
    name = "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"
    assert message.startswith(
        f"encoder.weights: imagenet for MobileNetV3Small: expected {name} in {cache}, and Keras "
        "couldn't download it ([Errno 101] Network is unreachable). Without network, download "
    )
    assert f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v3/{name}" in (
        message
    )


def test_imagenet_takes_the_file_in_keras_cache(cache, monkeypatch):
    config = Config.model_validate(APPLICATION)
    source = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    cache.mkdir()
    source.save(cache / "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5")
    monkeypatch.setattr("keras.src.utils.file_utils.validate_file", lambda *_, **__: True)
    encoder = build_config_encoder(config)
    weights = starting_weights("imagenet", encoder, config)
    for name, arrays in weights.items():
        encoder.get_layer(name).set_weights(arrays)
    for ours, theirs in zip(encoder.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_efficientnet_computes_what_keras_own_does(cache, monkeypatch):
    """Keras has a layer more in that with ImageNet's weights; its factor is in the variance here."""
    encoder = {"name": "keras.applications/EfficientNetB0", "weights": "imagenet"}
    config = Config.model_validate(CONFIG | {"encoder": encoder, "views": {"size": 32}})
    options = {"include_top": False, "pooling": "avg", "input_shape": (32, 32, 3)}
    source = keras.applications.EfficientNetB0(weights=None, **options)
    statistics = [np.array([0.485, 0.456, 0.406]), np.array([0.05, 0.06, 0.07]), np.array(1)]
    source.get_layer(index=2).set_weights(statistics)
    cache.mkdir()
    source.save(cache / "efficientnetb0_notop.h5")
    monkeypatch.setattr("keras.src.utils.file_utils.validate_file", lambda *_, **__: True)
    model = build_model(config)
    start_from(model, starting_weights("imagenet", model.encoder, config))
    pixels = np.random.default_rng(0).uniform(0.0, 255.0, (4, 32, 32, 3)).astype(np.float32)
    views = (pixels / 255.0 - config.views.mean) / np.array(config.views.std, np.float32)
    expected = keras.applications.EfficientNetB0(weights="imagenet", **options)(pixels)
    np.testing.assert_allclose(model.encoder(views), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(model.target_encoder(views), model.encoder(views))


def test_imagenet_is_for_applications_and_no_path():
    config = Config.model_validate(APPLICATION)
    assert absolute_paths(config).encoder.weights == "imagenet"
    with pytest.raises(ConfigError, match='expected a file or folder, as "imagenet" is for an'):
        load_config("demo", ["encoder.weights=imagenet"])
