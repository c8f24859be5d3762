"""Images, and files of tensors, for tests of converted networks."""

import numpy as np
import safetensors.numpy

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIZE = 64
SHALLOW = 1, 2, 1, 1
"""Blocks in each group: enough for each type of block and each stride."""


def images(count=3, size=SIZE, seed=2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def normalised(pixels: np.ndarray) -> np.ndarray:
    return ((pixels / 255.0 - MEAN) / STD).astype(np.float32)


def saved(folder, tensors, prefix=""):
    path = folder / "resnet.safetensors"
    safetensors.numpy.save_file(
        {f"{prefix}{name}": np.ascontiguousarray(value) for name, value in tensors.items()}, path
    )
    return path


def without(tensors: dict, name: str) -> dict:
    return {key: value for key, value in tensors.items() if key != name}
