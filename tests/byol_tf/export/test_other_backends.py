"""`encoder.keras` on JAX and PyTorch, without TensorFlow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from byol_tf import build_encoder, inference_model
from byol_tf.models.inference import exported_form
from tests.helpers.waiting import HANG

REPRESENT = """
import sys
sys.modules["byol_tf"] = None
import keras
import numpy as np
encoder = keras.saving.load_model("encoder.keras")
photos = np.load("photos.npz")
np.savez("outputs.npz", *[
    keras.ops.convert_to_numpy(encoder(photos[name], training=False)) for name in photos
])
assert "tensorflow" not in sys.modules
if keras.backend.backend() == "torch":
    import torch
    model = torch.nn.Sequential(encoder, torch.nn.Linear(encoder.output_shape[-1], 10))
    assert isinstance(encoder, torch.nn.Module)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    images, labels = photos["arr_0"], torch.arange(4) % 2
    losses = []
    for step in range(5):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        assert any(v.value.grad is not None for v in encoder.trainable_variables)
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0], losses
"""


@pytest.mark.long
@pytest.mark.parametrize("normalization", ["batch", "group"])
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_representations_are_the_same(tmp_path: Path, backend, normalization):
    """Of ResNet-18 with batch normalisation, and with GN and standardised kernels."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} isn't installed")
    encoder = build_encoder("resnet18", 64, normalization=normalization)
    draw = np.random.default_rng(0)
    for variable in encoder.variables:  # moving statistics too
        if variable.name == "moving_variance":
            variable.assign(draw.uniform(0.3, 1.0, variable.shape))
        else:
            variable.assign(variable + 0.05 * draw.normal(size=variable.shape))
    model = exported_form(
        inference_model(encoder, 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    model.save(tmp_path / "encoder.keras")
    photos = [
        draw.integers(0, 256, (4, height, width, 3), dtype=np.uint8)
        for height, width in ((64, 64), (40, 57), (213, 320))
    ]
    np.savez(tmp_path / "photos.npz", *photos)
    subprocess.run(
        [sys.executable, "-c", REPRESENT],
        cwd=tmp_path,
        env=os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"},
        check=True,
        timeout=HANG,
    )
    with np.load(tmp_path / "outputs.npz") as outputs:
        for images, received in zip(photos, outputs.values(), strict=True):
            expected = model.predict_on_batch(images)
            difference = np.abs(received - expected).max() / np.abs(expected).max()
            print(f"{backend}, {normalization}, {images.shape}: {difference:.1e}")
            assert difference < 1e-5
