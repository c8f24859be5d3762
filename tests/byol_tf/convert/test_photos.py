"""Converted networks of the published sizes against Haiku and torchvision on 32 real photos.

`-s` prints the differences. torchvision runs in the peers' environment (`make peers`).
"""

import os
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from benchmarks.efficientnet_lite0 import efficientnet_lite0, load_weights
from byol_tf.convert.__main__ import main
from byol_tf.convert.deepmind import _slot, read_deepmind
from byol_tf.models.inference import inference_model
from byol_tf.models.networks import build_encoder

ROOT = Path(__file__).parents[3]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOLERANCE = 1e-4
TIMEOUT = 600.0
"""Seconds; only a guard against hanging."""


@pytest.fixture(scope="module")
def pixels(photos) -> np.ndarray:
    """Returns uint8 `[32, 224, 224, 3]`: photos at equal distances in the list, resized."""
    paths = sorted((photos / "imagenette_stl10like" / "unlabeled").glob("*.JPEG"))
    chosen = [
        Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
        for path in paths[:: len(paths) // 32][:32]
    ]
    return np.stack([np.asarray(image) for image in chosen])


def assert_close(label: str, ours, theirs) -> None:
    """Prints and checks the largest difference.

    The expected values have to differ between photos: of constant ones it would mean nothing.
    """
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    difference = np.abs(ours - theirs).max()
    print(
        f"{label}: largest difference {difference:.1e} of values up to {np.abs(theirs).max():.2f}, "
        f"standard deviation {theirs.std(axis=0).mean():.3f}"
    )
    assert theirs.std(axis=0).mean() > 0.01
    assert difference < TOLERANCE


def in_batches(model, images, size=8):
    return np.concatenate(
        [np.asarray(model(images[start : start + size])) for start in range(0, len(images), size)]
    )


@pytest.mark.long
def test_deepmind_resnet50_with_heads_and_target(haiku_byol, pixels, tmp_path):
    network = haiku_byol.HaikuByol(hidden=4096, outputs=256)
    online, target = network.random_weights(0), network.random_weights(1)
    path = haiku_byol.save(tmp_path / "pretrain.pkl", haiku_byol.checkpoint(online, target))
    assert main(["deepmind", str(path), "--out", str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    for name, folder, trees in (("online", out, online), ("target", out / "target", target)):
        theirs = zip(
            *(
                network.outputs(*trees, pixels[i : i + 8] / np.float32(255))
                for i in range(0, len(pixels), 8)
            ),
            strict=True,
        )
        representation, projection, prediction = map(np.concatenate, theirs)
        x = in_batches(keras.models.load_model(folder / "encoder.keras"), pixels)
        assert_close(f"DeepMind's ResNet-50, {name} representation", x, representation)
        x = in_batches(keras.models.load_model(folder / "projector.keras"), x)
        assert_close(f"DeepMind's ResNet-50, {name} projection", x, projection)
        if name == "online":
            saved = tf.saved_model.load(str(out / "encoder" / "1"))
            assert_close(
                "DeepMind's ResNet-50, SavedModel", in_batches(saved.serve, pixels), representation
            )
            assert_close(
                "DeepMind's ResNet-50, prediction",
                in_batches(keras.models.load_model(out / "predictor.keras"), x),
                prediction,
            )


@pytest.mark.long
@pytest.mark.parametrize(("theirs", "ours"), [("ResNet50", "resnet50"), ("ResNet200", "resnet200")])
def test_published_depths_match_haikus_names_shapes_and_outputs(theirs, ours, haiku_byol, tmp_path):
    """At a sixteenth of the width and on noise, as depth alone decides about names."""
    network, shapes = haiku_byol.HaikuByol(theirs, 1 / 16), {}
    for tree in network.shapes():
        for module, leaves in tree.items():
            clean = "/".join(part for part in module.split("/") if part != "~")
            shapes |= {
                f"{clean}/{leaf}": leaf_shape.shape
                for leaf, leaf_shape in leaves.items()
                if leaf not in ("hidden", "counter")
            }
    encoder = build_encoder(ours, 32, 1 / 16)
    slots = [
        _slot(layer, variable, "res_net/", "initial_conv")
        for layer in encoder.layers
        for variable in layer.variables
    ]
    assert {slot.name for slot in slots} == {name for name in shapes if name.startswith("res_net/")}
    assert all(slot.accepts(shapes[slot.name]) for slot in slots)
    weights = network.random_weights(0)
    converted = read_deepmind(
        haiku_byol.save(tmp_path / "pretrain.pkl", haiku_byol.checkpoint(weights, weights)), 64
    )
    assert converted.architecture == (ours, 1 / 16)
    noise = np.random.default_rng(0).uniform(size=(4, 64, 64, 3)).astype(np.float32)
    expected, _, _ = network.outputs(*weights, noise)
    normalised = (noise - np.asarray(haiku_byol.MEAN)) / np.asarray(haiku_byol.STD)
    assert_close(
        f"DeepMind's {theirs} of a sixteenth of its width", converted.encoder(normalised), expected
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2"]
)
def test_torchvisions_resnets(name, pixels, tmp_path):
    theirs = _torch_side(name, pixels, tmp_path)
    path = tmp_path / "resnet.pth"
    assert main(["pytorch", str(path), "--out", str(tmp_path / "out")]) == 0
    saved = tf.saved_model.load(str(tmp_path / "out" / "encoder" / "1"))
    assert_close(f"torchvision's {name}", in_batches(saved.serve, pixels), theirs)


@pytest.mark.long
def test_efficientnet_lite0_of_the_benchmarks(pixels, tmp_path):
    theirs = _torch_side("efficientnet_lite0", pixels, tmp_path)
    encoder = efficientnet_lite0(pixels.shape[1])
    load_weights(encoder, tmp_path / "resnet.pth")
    ours = in_batches(inference_model(encoder, pixels.shape[1], MEAN, STD), pixels)
    assert_close("EfficientNet-Lite0 of ImageNet", ours, theirs)


def _torch_side(name: str, pixels: np.ndarray, folder: Path) -> np.ndarray:
    """Returns PyTorch's representations; its state dict is in `resnet.pth` in the folder."""
    if not PEERS.exists():
        pytest.skip("no .venv-peers; make peers")
    np.save(folder / "photos.npy", pixels)
    command = [PEERS, "-m", "tests.helpers.torchvision_side", name, "photos.npy", "."]
    paths = {"cwd": folder, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    subprocess.run(command, check=True, timeout=TIMEOUT, **paths)
    return np.load(folder / "representations.npy")
