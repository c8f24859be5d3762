"""Encoders of keras.applications, keras_hub and one's own modules, behind normalised images."""

import inspect
import re
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from byol_tf.models.external_encoders import as_encoder, build_external_encoder
from byol_tf.models.inference import inference_model

SIZE = 16
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


def photos(size: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


def model(*layers: keras.Layer, size: int | None = SIZE) -> keras.Model:
    return keras.Sequential([keras.Input((size, size, 3)), *layers])


# keras.applications

ONE_OF_EACH_MODULE = {
    function.__module__: name
    for name, function in vars(keras.applications).items()
    if inspect.isfunction(function)
}


@pytest.mark.parametrize(
    "name",
    [
        name if name == "MobileNet" else pytest.param(name, marks=pytest.mark.long)
        for name in ("MobileNet", *sorted(set(ONE_OF_EACH_MODULE.values()) - {"MobileNet"}))
    ],
)
def test_application_gets_its_own_preprocessing_of_pixels(name):
    size = 32 if name == "MobileNet" else 96
    encoder = build_external_encoder(f"keras.applications/{name}", size, MEAN, STD)
    build = getattr(keras.applications, name)
    expected = build(include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg")
    expected.set_weights(encoder.get_weights())
    prepared = sys.modules[build.__module__].preprocess_input(photos(size).astype(np.float32))
    np.testing.assert_allclose(
        inference_model(encoder, size, MEAN, STD)(photos(size)),
        expected(prepared, training=False),
        rtol=1e-3,
        atol=1e-5,
    )


def test_unknown_application_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match='did you mean "ConvNeXtTiny"'):
        build_external_encoder("keras.applications/ConvNextTiny", SIZE, MEAN, STD)


# models of one's own


def test_model_of_normalised_images_with_vectors_is_unchanged():
    own = model(keras.layers.Flatten(), keras.layers.Dense(4))
    assert as_encoder(own, SIZE, MEAN, STD) is own


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [keras.layers.Conv2D(4, 3)],
        lambda: [keras.layers.Conv2D(4, 3), keras.layers.Reshape((-1, 4))],
    ],
    ids=["map", "tokens"],
)
def test_output_that_is_no_vector_is_averaged(layers):
    own = model(*layers())
    images = np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
    outputs = own(images).numpy().reshape(2, -1, 4)
    encoded = as_encoder(own, SIZE, MEAN, STD)(images)
    np.testing.assert_allclose(encoded, outputs.mean(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [SIZE, None])
def test_model_that_scales_pixels_gets_pixels(size):
    own = model(
        keras.layers.Rescaling(1 / 127.5, -1.0),
        keras.layers.Conv2D(4, 3),
        keras.layers.GlobalAveragePooling2D(),
        size=size,
    )
    inference = inference_model(as_encoder(own, SIZE, MEAN, STD), SIZE, MEAN, STD)
    np.testing.assert_allclose(
        inference(photos(SIZE)), own(photos(SIZE).astype(np.float32)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: 3, "expected a built keras.Model; received 3"),
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "expected a built keras.Model"),
        (
            lambda: model(keras.layers.Flatten(), size=8),
            "as views.size is 16 and data.channels 3; received one of [None, 8, 8, 3]",
        ),
        (
            lambda: keras.Model([keras.Input((4,)), x := keras.Input((4,))], x),
            "expected a model of one input and one output; received 2 and 1",
        ),
        (
            lambda: keras.Model(x := keras.Input((SIZE, SIZE, 3)), [x, x]),
            "expected a model of one input and one output; received 1 and 2",
        ),
    ],
)
def test_other_model_is_refused(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        as_encoder(build(), SIZE, MEAN, STD)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module in the current folder, which isn't on Python's path."""
    (tmp_path / "my_encoders_of_this_test.py").write_text(
        "import keras\n"
        "def small(image_size, features=4):\n"
        "    return keras.Sequential([keras.Input((image_size, image_size, 3)),\n"
        "                             keras.layers.Conv2D(features, 3)])\n"
        "def of_another_argument(size):\n"
        "    return small(size)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "my_encoders_of_this_test"
    sys.modules.pop("my_encoders_of_this_test", None)


def test_function_of_a_module_in_the_current_folder_is_called(own_module):
    encoder = build_external_encoder(f"{own_module}:small", SIZE, MEAN, STD)
    assert (encoder.input_shape, encoder.output_shape) == ((None, SIZE, SIZE, 3), (None, 4))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:small", 'there is no module "no_such_module"'),
        ("{}:tiny", "expected a function"),
        ("{}:of_another_argument", "expected a function that is called with image_size=... alone"),
    ],
)
def test_function_that_cannot_be_called_is_refused(name, message, own_module):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_external_encoder(name.format(own_module), SIZE, MEAN, STD)


# keras_hub, with presets as its cache keeps them


@pytest.fixture
def cached_presets(tmp_path, monkeypatch):
    """Two tiny networks in the place of presets; without network, all others are missing."""
    hub = pytest.importorskip("keras_hub")
    from kagglehub import cache
    from kagglehub.handle import parse_model_handle

    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    vit = hub.models.ViTBackbone((64, 64, 3), 16, 1, 2, hidden_dim=8, mlp_dim=8)
    converter = hub.layers.ImageConverter(scale=1 / 127.5, offset=-1.0)
    dino = hub.models.DINOV2Backbone(
        8,
        1,
        8,
        2,
        8,
        num_register_tokens=2,
        image_shape=(64, 64, 3),
        position_embedding_shape=(64, 64, 3),
    )
    for preset, parts in (
        ("vit_base_patch16_224_imagenet", (vit, converter)),
        ("dinov2_small", (dino,)),
    ):
        handle = parse_model_handle(
            hub.models.Backbone.presets[preset]["kaggle_handle"].removeprefix("kaggle://")
        )
        for part in parts:
            part.save_to_preset(str(tmp_path / preset))
        for file in (tmp_path / preset).iterdir():
            kept = Path(cache.get_cached_path(handle, file.name))
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, kept)
            cache.Cache().mark_as_complete(handle, file.name)


@pytest.mark.parametrize("preset", ["vit_base_patch16_224_imagenet", "dinov2_small"])
def test_preset_of_keras_hub_gives_its_class_token(preset, cached_presets):
    import keras_hub

    size = 32
    encoder = build_external_encoder(f"keras_hub/{preset}", size, MEAN, STD)
    backbone = keras_hub.models.Backbone.from_preset(
        preset, load_weights=False, image_shape=(size, size, 3)
    )
    backbone.set_weights(encoder.get_weights())
    pixels = photos(size).astype(np.float32)
    prepared = pixels / 127.5 - 1 if preset.startswith("vit") else (pixels / 255 - MEAN) / STD
    expected = keras.Model(backbone.inputs[0], backbone.outputs[0])(prepared.astype(np.float32))
    np.testing.assert_allclose(
        inference_model(encoder, size, MEAN, STD)(photos(size)),
        expected[:, 0],
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("vit_large_patch16_224_imagenet", r"config.json, which keras_hub fetches from kaggle://"),
        ("dinov2_smal", r'did you mean "dinov2_small"'),
        ("bert_tiny_en_uncased", r"expected"),
    ],
)
def test_preset_that_cannot_be_had_is_refused(preset, message, cached_presets):
    with pytest.raises(ValueError, match=message):
        build_external_encoder(f"keras_hub/{preset}", SIZE, MEAN, STD)
