"""`export --features map`: the features at each position, verified in every format."""

import json

import keras
import numpy as np
import pytest

from byol_tf import build_encoder, inference_model
from byol_tf.export.__main__ import main
from byol_tf.export.formats import FORMAT_NAMES, INT8_FILE, select_formats
from byol_tf.models.feature_map import map_inference_model

PHOTO = np.random.default_rng(0).integers(0, 256, (2, 40, 57, 3), dtype=np.uint8)


def inference(encoder: keras.Model) -> keras.Model:
    return inference_model(encoder, 32, (0.4, 0.5, 0.6), (0.3, 0.2, 0.1))


@pytest.mark.parametrize(
    "name",
    [
        "convnet",
        "resnet18",
        pytest.param("keras.applications/EfficientNetV2B0", marks=pytest.mark.long),
    ],
)
def test_mean_of_the_map_is_the_representation(name):
    if name.startswith("keras"):
        from byol_tf.models.external_encoders import build_external_encoder

        encoder = build_external_encoder(name, 32, (0.4, 0.5, 0.6), (0.3, 0.2, 0.1))
    else:
        encoder = build_encoder(name, 32, width=0.25)
    model = inference(encoder)
    maps = map_inference_model(model)
    assert maps.output_shape[1:] == (*encoder.layers[-1].input.shape[1:3], model.output_shape[1])
    np.testing.assert_allclose(
        np.mean(maps(PHOTO), axis=(1, 2)), model(PHOTO), rtol=1e-4, atol=1e-5
    )


def test_nested_encoder_is_cut_inside():
    images = keras.Input((32, 32, 3))
    inner = build_encoder("convnet", 32, width=0.25)
    model = inference(keras.Model(images, inner(keras.layers.GaussianNoise(0.1)(images))))
    maps = map_inference_model(model)
    assert maps.output_shape == (None, 4, 4, 32)
    np.testing.assert_allclose(np.mean(maps(PHOTO), axis=(1, 2)), model(PHOTO), rtol=1e-4)


def test_other_last_layers_are_refused():
    images = keras.Input((32, 32, 3))
    vectors = keras.layers.Dense(4, name="last")(keras.layers.Flatten()(images))
    with pytest.raises(ValueError, match=r'"other" ends in Dense of \[None, 3072\]'):
        map_inference_model(inference(keras.Model(images, vectors, name="other")))


@pytest.mark.parametrize("names", [["keras"], pytest.param(FORMAT_NAMES, marks=pytest.mark.long)])
def test_each_format_of_a_run_is_verified(copied_run, tmp_path, capsys, names):
    """But int8: to untrained weights digits look so similar that neighbours are ties."""
    folder = copied_run(tmp_path / "run")
    code = main(["--run", str(folder.root), "--features", "map", "--format", *names])
    export, printed = folder.export / "map", capsys.readouterr()
    failed = INT8_FILE in printed.err
    assert code == failed, printed.err
    assert f"{export}: maps of 4 x 4 x 32 numbers" in printed.out
    verified = json.loads((export / "verification.json").read_text())
    files = {each.file for each in select_formats(tuple(names))}
    assert {each["file"] for each in verified.values()} == (
        files - {INT8_FILE} if failed else files
    )
    assert "All return the same\nfloat32 map `[h, w, c]`" in (export / "USAGE.md").read_text()
    assert "float32 maps `[N, h, w, c]`" in (export / "README.md").read_text()
    vectors = keras.saving.load_model(folder.export / "encoder.keras")
    maps = keras.saving.load_model(export / "encoder.keras")
    np.testing.assert_allclose(np.mean(maps(PHOTO), axis=(1, 2)), vectors(PHOTO), rtol=1e-4)
