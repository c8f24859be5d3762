"""ONNX export of layers for which TensorFlow's graph has more than operations."""

import keras
import numpy as np
import pytest

from byol_tf.export.onnx import write_onnx
from byol_tf.models.inference import exported_form, inference_model

SIZE = 16


def normalization() -> keras.layers.Layer:
    layer = keras.layers.Normalization(axis=-1)
    layer.adapt(np.random.default_rng(0).normal(3.0, 2.0, (8, SIZE, SIZE, 3)))
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        normalization,
        lambda: keras.layers.Activation("gelu"),
        lambda: keras.layers.Conv2D(6, 3, groups=3),
        lambda: keras.layers.DepthwiseConv2D(3),
    ],
    ids=["constants that are tensors", "exact GELU", "grouped convolution", "depthwise"],
)
def test_outputs_are_those_of_the_model(layer, tmp_path):
    reason = "{} isn't installed (extra export)"
    onnxruntime, _ = (
        pytest.importorskip(name, reason=reason.format(name)) for name in ("onnxruntime", "tf2onnx")
    )
    keras.utils.set_random_seed(0)
    images = keras.Input((SIZE, SIZE, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(layer()(images)))
    encoder = keras.Model(images, outputs)
    model = exported_form(inference_model(encoder, SIZE, (0.5,) * 3, (0.25,) * 3))
    write_onnx(model, tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    assert [each.name for each in session.get_inputs()] == ["images"]
    photos = np.random.default_rng(0).integers(0, 256, (2, 40, 24, 3), dtype=np.uint8)
    received = session.run(None, {"images": photos})[0]
    np.testing.assert_allclose(received, model(photos), rtol=1e-4, atol=1e-5)
