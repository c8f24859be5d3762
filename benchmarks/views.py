"""`python -m benchmarks.views`: images a second, each with both views of the BYOL recipe, from uint8 images held in memory.

keras-cv in tf.data (host views), fused views in tf.data, called directly, and compiled as a whole, in turns in one process; ratios are the
medians of the rounds. With `--peer` also torchvision + PIL in two DataLoader workers and kornia, where they can be imported. The images are
tiles of scikit-learn's two photographs, on which it also prints how far linear views lie from exact ones, in [0, 1].
"""

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable

from byol_tf.devices import prepare_environment

prepare_environment()

import numpy as np
import tensorflow as tf

from pipelines.fused_views import FusedViews, fused_view_pair
from pipelines.host_views import HostViews
from pipelines.policy import kernel_size, preset

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SEED = 0
_MADE_AHEAD = 4
"""Batches that two DataLoader workers (tf.data: half of it) hold ready when their turn begins. They aren't counted; those after a turn are
made in the pause."""
_PAUSE = 0.5


def photo_tiles(count: int, size: int) -> np.ndarray:
    """uint8 `[count, size, size, 3]` cut at random from two photographs of 427 x 640 pixels."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(_SEED)
    photos = load_sample_images().images
    tiles = []
    for number in range(count):
        photo = photos[number % len(photos)]
        top, left = (rng.integers(side - size + 1) for side in photo.shape[:2])
        tiles.append(photo[top : top + size, left : left + size])
    return np.stack(tiles)


def _layers(size, **options):
    return [FusedViews(policy, size, (_SEED, view), _MEAN, _STD, **options) for view, policy in enumerate(preset("byol"))]


def _ids(count):
    return tf.stack([tf.zeros(count, tf.int64), tf.range(count, dtype=tf.int64)], axis=1)


def exact_difference(images: np.ndarray) -> dict[str, float]:
    """Mean and 99th percentile of the absolute difference between linear and exact views, pixels in [0, 1]."""
    ids = _ids(len(images))
    views = [np.stack([layer(images, ids) * _STD for layer in _layers(images.shape[1], exact=exact)]) for exact in (False, True)]
    difference = np.abs(views[0] - views[1])
    return {"mean": round(float(difference.mean()), 4), "percentile_99": round(float(np.percentile(difference, 99)), 4)}


def _stream(images: np.ndarray, batch: int, views: Callable) -> Callable[[int], None]:
    """Runs `views(images, ids)` in a tf.data map for as many batches as asked."""
    data = tf.data.Dataset.from_tensors((tf.constant(images[:batch]), _ids(batch))).repeat()
    iterator = iter(data.map(views, num_parallel_calls=2))

    def run(batches):
        for _ in range(batches):
            next(iterator)

    return run


def _calls(images: np.ndarray, batch: int, views: Callable) -> Callable[[int], None]:
    images, ids = tf.constant(images[:batch]), _ids(batch)

    def run(batches):
        for _ in range(batches):
            last = views(images, ids)
        last[1].numpy()

    return run


def _torchvision_transforms():
    import torch

    try:
        import torchvision.transforms as transforms
    except RuntimeError:  # a torchvision without its C++ operations, of which transforms need none but their names
        names = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            names.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        import torchvision.transforms as transforms
    return transforms


class _Pairs:
    """A DataLoader's dataset without end: both views of one image, made by torchvision from a PIL image."""

    def __init__(self, images: np.ndarray, length: int):
        from PIL import Image

        transforms = _torchvision_transforms()

        size = images.shape[1]
        jitter = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
        blur = transforms.GaussianBlur(kernel_size(size), (0.1, 2.0))

        def view(blur_probability, solarize_probability):
            return transforms.Compose(
                [
                    transforms.RandomResizedCrop(size, (0.08, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
                    transforms.RandomHorizontalFlip(),
                    transforms.RandomApply([jitter], 0.8),
                    transforms.RandomGrayscale(0.2),
                    transforms.RandomApply([blur], blur_probability),
                    transforms.RandomSolarize(128, solarize_probability),
                    transforms.ToTensor(),
                    transforms.Normalize(_MEAN, _STD),
                ]
            )

        self._views = view(1.0, 0.0), view(0.1, 0.2)
        self._images, self._length = [Image.fromarray(image) for image in images], length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple:
        image = self._images[index % len(self._images)]
        return tuple(view(image) for view in self._views)


def _torchvision(images, batch):
    from torch.utils.data import DataLoader

    iterator = iter(DataLoader(_Pairs(images, 10**7), batch, num_workers=2))

    def run(batches):
        for _ in range(batches):
            next(iterator)

    return run


def _kornia(images, batch):
    import kornia.augmentation as augmentation
    import torch

    size = images.shape[1]
    blur = (kernel_size(size),) * 2, (0.1, 2.0)

    def view(blur_probability, solarize_probability):
        return torch.nn.Sequential(
            augmentation.RandomResizedCrop((size, size), (0.08, 1.0)),
            augmentation.RandomHorizontalFlip(),
            augmentation.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
            augmentation.RandomGrayscale(p=0.2),
            augmentation.RandomGaussianBlur(*blur, p=blur_probability),
            augmentation.RandomSolarize(0.0, 0.0, p=solarize_probability),
            augmentation.Normalize(torch.tensor(_MEAN), torch.tensor(_STD)),
        )

    views = view(1.0, 0.0), view(0.1, 0.2)
    pixels = torch.from_numpy(images[:batch])

    def run(batches):
        for _ in range(batches):
            planes = pixels.permute(0, 3, 1, 2).float() / 255.0
            for view in views:
                view(planes)

    return run


PEERS = {"torchvision": (("torch", "torchvision"), _torchvision), "kornia": (("torch", "kornia"), _kornia)}
"""Name -> the packages it needs and what starts it."""


def contestants(images: np.ndarray, batch: int, peer: bool) -> tuple[dict[str, Callable[[int], None]], list[str]]:
    """Name -> a function that makes the views of as many batches as asked, and the names of peers that can't be imported."""
    sides, missing = {}, []
    # Peers first: workers are forked, and have to be before TensorFlow starts its threads.
    for name, (packages, start) in PEERS.items() if peer else ():
        if all(importlib.util.find_spec(package) for package in packages):
            sides[name] = start(images, batch)
        else:
            missing.append(name)
    size = images.shape[1]
    host = [HostViews(policy, size, (_SEED, view)) for view, policy in enumerate(preset("byol"))]
    mean, std = tf.constant(_MEAN), tf.constant(_STD)

    def keras_cv(images, ids):
        return tuple((views(images, ids[0, 0], ids[:, 1]) - mean) / std for views in host)

    def fused(dtype):
        layers = _layers(size, dtype=dtype)
        return lambda images, ids: fused_view_pair(*layers, images, ids)

    def function(views, jit_compile=False):
        return tf.function(views, jit_compile=jit_compile, autograph=False)

    sides |= {
        "keras_cv": _stream(images, batch, function(keras_cv)),
        "fused_in_tf_data": _stream(images, batch, function(fused("float32"))),
        "fused": _calls(images, batch, function(fused("float32"))),
        "fused_xla": _calls(images, batch, function(fused("float32"), jit_compile=True)),
        "fused_bfloat16": _calls(images, batch, function(fused("bfloat16"))),
    }
    return sides, missing


def measure(size: int, batch: int, pairs: int, seconds: float, peer: bool) -> dict:
    """Images a second of every side, and medians of the ratios over the rounds."""
    images = photo_tiles(max(batch, 256), size)
    sides, missing = contestants(images, batch, peer)
    batches = {}
    for name, run in sides.items():
        run(2 * _MADE_AHEAD)
        began = time.perf_counter()
        run(_MADE_AHEAD)
        batches[name] = max(_MADE_AHEAD, round(_MADE_AHEAD * seconds / (time.perf_counter() - began)))
    speeds = {name: [] for name in sides}
    for _ in range(pairs):
        for name, run in sides.items():
            time.sleep(_PAUSE)
            run(_MADE_AHEAD)
            began = time.perf_counter()
            run(batches[name])
            speeds[name].append(batch * batches[name] / (time.perf_counter() - began))
    result = {"benchmark": "views", "size": size, "batch": batch}
    result["images_per_second"] = {name: [round(speed) for speed in measured] for name, measured in speeds.items()}
    for base in ("keras_cv", *(name for name in PEERS if name in sides)):
        against = {name: zip(measured, speeds[base], strict=True) for name, measured in speeds.items() if name.startswith("fused")}
        result[f"against_{base}"] = {name: round(statistics.median(a / b for a, b in both), 2) for name, both in against.items()}
    if missing:
        result["not_installed"] = missing
    return result | {"linear_against_exact": exact_difference(images[:128])}


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.views", description=__doc__)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side in a round")
    parser.add_argument("--peer", action="store_true", help="also torchvision + PIL and kornia")
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
