"""Encoder files that commands take, written from Python."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from byol_tf import (
    BYOL,
    TargetUpdate,
    build_encoder,
    constant_tau,
    export_encoder,
    inference_model,
    load_run_encoder,
    mlp_head,
)
from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config
from byol_tf.embed.__main__ import main as embed
from byol_tf.errors import ProtocolError
from byol_tf.export.__main__ import main as export
from byol_tf.export.verification import read_verifications
from byol_tf.models.inference import exported_form
from byol_tf.models.networks import BatchNorm
from byol_tf.runs.checkpoints import write_checkpoint
from byol_tf.runs.encoders import load_encoder_file, save_architecture
from byol_tf.runs.folder import RunFolder
from byol_tf.train.__main__ import main as train
from tests.helpers import tiny
from tests.helpers.small_run import CONFIG

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


def photos() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, 20, 31, 3), dtype=np.uint8)


def float_encoder(first: keras.Layer) -> keras.Model:
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3)(first(images))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def test_float_encoder_without_known_normalisation_is_refused(tmp_path):
    path = tmp_path / "encoder.keras"
    float_encoder(keras.layers.Conv2D(3, 1)).save(path)
    with pytest.raises(
        ProtocolError,
        match=r"received one of float32 images, whose normalisation isn't known. In Python, "
        r"byol_tf.export_encoder\(byol_tf.inference_model\(encoder, size, mean, std\), folder\)",
    ):
        load_encoder_file(path)


def test_float_encoder_that_scales_pixels_itself_is_loaded(tmp_path):
    path = tmp_path / "encoder.keras"
    encoder = float_encoder(keras.layers.Rescaling(1 / 127.5, -1.0))
    encoder.save(path)
    np.testing.assert_allclose(
        load_encoder_file(path)(photos()), encoder(photos().astype(np.float32)), rtol=1e-5
    )


@pytest.mark.parametrize("file", ["encoder", "encoder.keras"])
def test_exported_encoder_of_a_python_model_is_loaded(file, tmp_path):
    model = tiny.model()
    inference = inference_model(model.encoder, tiny.SIZE, MEAN, STD)
    export_encoder(inference, tmp_path)
    loaded = load_encoder_file(tmp_path / file)
    np.testing.assert_allclose(loaded(photos()), inference(photos()), rtol=1e-4, atol=1e-5)
    assert (tmp_path / "USAGE.md").exists()


def test_encoder_with_a_lambda_is_exported_as_a_saved_model_only(tmp_path, caplog):
    images = keras.Input((tiny.SIZE, tiny.SIZE, 3))
    x = keras.layers.Lambda(lambda x: x / 2.0)(images)
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    inference = inference_model(encoder, tiny.SIZE, MEAN, STD)
    (tmp_path / "encoder.keras").write_text("of an earlier encoder")
    export_encoder(inference, str(tmp_path))
    assert "encoder.keras: not written: it contains keras.layers.Lambda" in caplog.text
    assert not (tmp_path / "encoder.keras").exists()
    np.testing.assert_allclose(
        load_encoder_file(tmp_path / "encoder")(photos()), inference(photos()), rtol=1e-4, atol=1e-5
    )


def test_export_of_a_bare_encoder_names_the_model_to_pass(tmp_path):
    with pytest.raises(ValueError, match=r"inference_model\(encoder, size, mean, std\) builds one"):
        export_encoder(tiny.encoder(), tmp_path)
    assert not list(tmp_path.iterdir())


# the encoder of a run whose author had code of his own


def own_encoder(*layers: keras.Layer) -> keras.Model:
    inputs = keras.Input((tiny.SIZE, tiny.SIZE, 3))
    x = BatchNorm(name="bn")(keras.layers.Conv2D(4, 3)(inputs))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


def run_of(encoder: keras.Model, name: str, root: Path) -> tuple[Config, RunFolder]:
    """A run folder with the files that its encoder is loaded from."""
    folder = RunFolder(root)
    root.mkdir()
    folder.config.write_text(
        json.dumps(CONFIG | {"encoder": {"name": name}, "views": {"size": tiny.SIZE}})
    )
    config = load_config(folder.config)
    arrays = {
        f"online/encoder/{index:04d}/{variable.path}": variable.numpy()
        for index, variable in enumerate(encoder.variables)
    }
    write_checkpoint(folder.checkpoints, 1, 0, arrays, {})
    save_architecture(config, folder, encoder)
    return config, folder


@pytest.mark.parametrize("name", ["no_such_module:build", "keras.Model"])
def test_run_is_loaded_without_the_code_that_built_its_encoder(name, tmp_path):
    encoder = own_encoder(keras.layers.ReLU())
    config, folder = run_of(encoder, name, tmp_path / "run")
    np.testing.assert_allclose(
        load_run_encoder(config, folder)(photos()),
        inference_model(encoder, *config.views.preparation)(photos()),
        rtol=1e-5,
        atol=1e-6,
    )


def test_loading_leaves_the_policy_of_the_process(tmp_path):
    config, folder = run_of(own_encoder(), "no_such_module:build", tmp_path / "run")
    keras.config.set_dtype_policy("mixed_bfloat16")
    exported = exported_form(load_run_encoder(config, folder))
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    exported.save(tmp_path / "encoder.keras")
    loaded = load_encoder_file(tmp_path / "encoder.keras")
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert {each.dtype_policy.name for each in (*exported.layers, *loaded.layers)} == {"float32"}


class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x


@pytest.mark.parametrize("layer", [Doubled(), keras.layers.Lambda(lambda x: 2.0 * x)])
def test_layer_of_another_class_in_a_run_is_refused(layer, tmp_path):
    encoder = own_encoder(layer)
    config, folder = run_of(encoder, "no_such_module:build", tmp_path / "run")
    with pytest.raises(ProtocolError, match=r"encoder.json: it .*Use what the run exported, --enc"):
        load_run_encoder(config, folder)
    assert load_run_encoder(config, folder, encoder)(photos()).shape == (3, 4)


def test_module_that_a_run_names_is_never_imported(tmp_path, monkeypatch):
    (tmp_path / "named_by_a_run.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    config, folder = run_of(own_encoder(), "named_by_a_run:build", tmp_path / "run")
    load_run_encoder(config, folder)
    folder.architecture.unlink()
    with pytest.raises(ProtocolError, match="needs Python code of its author"):
        load_run_encoder(config, folder)


# from training to embeddings, encoder by encoder


def of_keras(name: str, **options) -> keras.Model:
    build = getattr(keras.applications, name)
    shape = (32, 32, 3)
    return build(input_shape=shape, include_top=False, weights=None, pooling="avg", **options)


def nested() -> keras.Model:
    inner = build_encoder("convnet", 32, 0.25)
    return keras.Sequential([keras.Input((32, 32, 3)), inner, keras.layers.Dense(8)])


def with_operators() -> keras.Model:
    images = keras.Input((32, 32, 3))
    x = keras.ops.relu(keras.layers.Conv2D(8, 3, strides=2)(images * 2 - 1))
    return keras.Model(images, keras.ops.mean(x, axis=(1, 2)))


@keras.saving.register_keras_serializable(package="test_encoders")
class Subclassed(keras.Model):
    """Calls layers of its own; `get_config` has its argument."""

    def __init__(self, features: int = 8, **kwargs):
        super().__init__(**kwargs)
        self.features = features
        self.conv = keras.layers.Conv2D(features, 3, strides=2)
        self.norm = keras.layers.BatchNormalization()
        self.pool = keras.layers.GlobalAveragePooling2D()

    def call(self, images, training=None):
        return self.pool(self.norm(self.conv(images), training=training))

    def get_config(self):
        return super().get_config() | {"features": self.features}


def subclassed() -> keras.Model:
    model = Subclassed()
    model(np.zeros((1, 32, 32, 3), np.float32))
    return model


def with_lambda() -> keras.Model:
    images = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3)(keras.layers.Lambda(lambda x: x / 2.0)(images))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


ENCODERS = {
    "convnet": lambda: build_encoder("convnet", 32, 0.5),
    "resnet18, batch": lambda: build_encoder("resnet18", 32, 0.25),
    "resnet18, group": lambda: build_encoder("resnet18", 32, 0.25, normalization="group"),
    "MobileNet": lambda: of_keras("MobileNet", alpha=0.25),
    "MobileNetV3Small": lambda: of_keras("MobileNetV3Small", alpha=0.35, minimalistic=True),
    "EfficientNetV2B0": lambda: of_keras("EfficientNetV2B0"),
    "DenseNet121": lambda: of_keras("DenseNet121"),
    "ConvNeXtTiny": lambda: of_keras("ConvNeXtTiny"),
    "nested": nested,
    "with operators": with_operators,
    "subclassed": subclassed,
    "with a Lambda": with_lambda,
}


@pytest.mark.long
@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_trains_saves_exports_and_embeds(name, tmp_path, capsys):
    """`-s` prints how far each loaded encoder is from the trained one."""
    encoder = ENCODERS[name]()
    width = int(encoder(np.zeros((1, 32, 32, 3), np.float32)).shape[-1])
    model = BYOL(encoder, mlp_head(width, 32, 16, "projector"), mlp_head(16, 32, 16, "predictor"))
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    views = np.random.default_rng(0).normal(size=(2, 8, 32, 32, 3)).astype(np.float32)
    before = encoder.get_weights()
    pairs = tf.data.Dataset.from_tensors(tuple(views)).repeat(2)
    model.fit(pairs, callbacks=[TargetUpdate(constant_tau(0.9))], shuffle=False, verbose=0)
    moved = max(np.abs(a - b).max() for a, b in zip(encoder.get_weights(), before, strict=True))
    assert moved > 1e-5

    model.save(tmp_path / "byol.keras")
    loaded = keras.models.load_model(tmp_path / "byol.keras", safe_mode=name != "with a Lambda")
    for one, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)

    inference = inference_model(encoder, 32, MEAN, STD)
    export_encoder(inference, tmp_path / "exported")
    expected = inference(photos()).numpy()
    differences = {}
    (tmp_path / "photos").mkdir()
    Image.fromarray(photos()[0]).save(tmp_path / "photos" / "photo.png")
    files = ["encoder"] if name == "with a Lambda" else ["encoder", "encoder.keras"]
    for file in files:
        outputs = load_encoder_file(tmp_path / "exported" / file)(photos()).numpy()
        differences[file] = np.abs(outputs - expected).max() / np.abs(expected).max()
        assert differences[file] < 1e-4
        words = [
            "--encoder",
            str(tmp_path / "exported" / file),
            "--images",
            str(tmp_path / "photos"),
        ]
        assert embed([*words, "--out", str(tmp_path / f"embedded-{file}")]) == 0
        rows = np.load(tmp_path / f"embedded-{file}" / "embeddings.npy")
        np.testing.assert_allclose(rows[0], expected[0], rtol=1e-3, atol=1e-4)
    assert sorted(path.name for path in (tmp_path / "exported").iterdir()) == [
        "USAGE.md",
        *files,
    ]
    with capsys.disabled():
        print(f"{name}: {', '.join(f'{file} {value:.1e}' for file, value in differences.items())}")


# the same by the commands: a run of one step, resumed for another, exported in all formats, embedded

OWN_MODULE = '''
import keras


def small(image_size):
    """Ends in a map; with dropout."""
    inputs = x = keras.Input((image_size, image_size, 3))
    for channels in (16, 32, 64):
        x = keras.layers.Conv2D(channels, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, keras.layers.Dropout(0.1)(x))


def vit(image_size):
    """A small vision transformer of Keras' own layers; of pixels, with stochastic attention."""
    inputs = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
    x = keras.layers.Conv2D(48, 8, strides=8)(x)
    x = keras.layers.Reshape((-1, 48))(x)
    places = keras.layers.Embedding(x.shape[1], 48)(keras.ops.arange(x.shape[1]))
    x = x + places
    for _ in range(2):
        y = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.MultiHeadAttention(3, 16, dropout=0.1)(y, y)
        y = keras.layers.Dense(96, activation="gelu")(keras.layers.LayerNormalization()(x))
        x = x + keras.layers.Dense(48)(y)
    return keras.Model(inputs, x)
'''

NAMES = (
    "convnet",
    "resnet18",
    "my_encoders:small",
    "my_encoders:vit",
    "keras.applications/MobileNet",
    "keras.applications/MobileNetV3Small",
    "keras.applications/ResNet50",
    "keras.applications/VGG16",
    "keras.applications/EfficientNetV2B0",
    "keras.applications/ConvNeXtTiny",
    "keras.applications/DenseNet121",
    "keras.applications/ResNet50V2",
)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_run_of_an_encoder_is_trained_resumed_exported_and_embedded(
    name, tmp_path, monkeypatch, capsys
):
    """`-s` prints a row of the table in docs/encoders.md: each format's largest difference."""
    (tmp_path / "my_encoders.py").write_text(OWN_MODULE)
    (tmp_path / "photos").mkdir()
    Image.fromarray(photos()[0]).save(tmp_path / "photos" / "photo.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    changes = {
        "encoder": {"name": name},
        "data": {"source": "digits", "pretrain_images": 16},
        "views": {"size": 32, "engine": "fused"},
        "training": {"epochs": 2, "batch_size": 16},
        "optimizer": {"base_learning_rate": 0.001, "schedule": "constant"},
        "tau": {"schedule": "constant", "base": 0.99},
        "probe": {"train_images": 40, "test_images": 40},
        "run": {"report": False},
    }
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changes))
    words = ["--config", "config.json", "--run-dir", "run"]
    for epochs in (1, 2):
        assert train([*words, "--set", f"training.epochs={epochs}"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["epochs"], result["steps"]) == (2, 2)
    sys.modules.pop("my_encoders", None)
    (tmp_path / "my_encoders.py").unlink()  # what follows doesn't need it

    code = export(["--run", "run", "--format", "all"])
    verified = read_verifications(tmp_path / "run" / "export")
    # Of nearly random weights int8 may be too far from the encoder, and isn't kept.
    int8 = "LiteRT, int8" in verified
    assert (len(verified), code) == ((7, 0) if int8 else (6, 1))
    assert embed(["--encoder", "run", "--images", "photos", "--out", "embedded"]) == 0
    rows = np.load(tmp_path / "embedded" / "embeddings.npy")
    loaded = load_encoder_file(tmp_path / "run" / "export" / "encoder")
    np.testing.assert_allclose(rows, loaded(photos()[:1]), rtol=1e-3, atol=1e-4)
    with capsys.disabled():
        differences = [f"{title} {each['difference']:.1e}" for title, each in verified.items()]
        print(f"\n| `{name}` | {rows.shape[1]} | {' | '.join(differences)} |")
