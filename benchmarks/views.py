"""`python -m benchmarks.views`: throughput of the engines that make views.

Images per second, each with both views of the BYOL recipe, from uint8 images in memory: layers of
keras-cv and of Keras in tf.data (host views), fused views in tf.data, called directly, and compiled
as a whole. They take turns; ratios are the medians of the rounds. With `--peer` also torchvision
from PIL images and from uint8 tensors, and albumentations, in two DataLoader workers, and kornia,
eager and by `torch.compile`. The images are tiles of scikit-learn's two photographs, on which it
also prints how far linear views lie from exact ones, in [0, 1].
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from byol_tf.devices import prepare_environment

prepare_environment()

import numpy as np
import tensorflow as tf

from benchmarks.peers import Peer, compile_modes
from benchmarks.turns import Side, fastest, median_ratio, rounded, take_turns, timed
from pipelines.policy import kernel_size, preset
from pipelines.views.fused import FusedViews
from pipelines.views.host import HostViews
from pipelines.views.random_params import sample_params

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SEED = 0
_PARALLEL = 2
_UNCOUNTED = 5
"""Batches before the measurement: more than a DataLoader or tf.data prefetches in a pause."""


def photo_tiles(count: int, size: int) -> np.ndarray:
    """Returns uint8 `[count, size, size, 3]`, cut at random from two photos of 427 x 640 pixels."""
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
    return [
        FusedViews(policy, size, view, _MEAN, _STD, **options)
        for view, policy in enumerate(preset("byol"))
    ]


def _params(count: int) -> tf.Tensor:
    epoch = tf.constant(0, tf.int64)
    return sample_params(_SEED, 2, epoch, tf.range(count, dtype=tf.int64))


def exact_difference(images: np.ndarray) -> dict[str, float]:
    """Returns mean and 99th percentile of the difference between linear and exact views.

    Pixels are in [0, 1].
    """
    params = _params(len(images))
    views = [
        np.stack([layer(images, params) * _STD for layer in _layers(images.shape[1], exact=exact)])
        for exact in (False, True)
    ]
    difference = np.abs(views[0] - views[1])
    return {
        "mean": round(float(difference.mean()), 4),
        "percentile_99": round(float(np.percentile(difference, 99)), 4),
    }


def _stream(images: np.ndarray, batch: int, views: Callable) -> Side:
    """Returns a side that calls `views(images, params)` in a tf.data map."""
    data = tf.data.Dataset.from_tensors((tf.constant(images[:batch]), _params(batch))).repeat()
    iterator = iter(data.map(views, num_parallel_calls=_PARALLEL))

    def run(batches):
        for _ in range(batches):
            next(iterator)

    measured = timed(run)

    def side(batches):
        run(_UNCOUNTED)
        # Batches that are made in parallel arrive together.
        return measured(_PARALLEL * batches) / _PARALLEL

    return side


def _calls(images: np.ndarray, batch: int, views: Callable) -> Side:
    images, params = tf.constant(images[:batch]), _params(batch)

    def run(batches):
        for _ in range(batches):
            last = views(images, params)
        last[1].numpy()

    return timed(run)


def sides_of(images: np.ndarray, batch: int) -> dict[str, Side]:
    """Returns our own engines."""
    size = images.shape[1]
    mean, std = tf.constant(_MEAN), tf.constant(_STD)

    def host(engine):
        makers = [HostViews(policy, size, engine) for policy in preset("byol")]
        return lambda images, params: tuple(
            (maker(images, params[:, view]) - mean) / std for view, maker in enumerate(makers)
        )

    def fused(dtype, exact=False):
        layers = _layers(size, dtype=dtype, exact=exact)
        return lambda images, params: tuple(layer(images, params) for layer in layers)

    def function(views, jit_compile=False):
        return tf.function(views, jit_compile=jit_compile, autograph=False)

    return {
        "keras_cv": _stream(images, batch, function(host("keras_cv"))),
        "keras": _stream(images, batch, function(host("keras"))),
        "fused_in_tf_data": _stream(images, batch, function(fused("float32"))),
        "fused": _calls(images, batch, function(fused("float32"))),
        "fused_xla": _calls(images, batch, function(fused("float32"), jit_compile=True)),
        "fused_exact": _calls(images, batch, function(fused("float32", exact=True))),
        "fused_bfloat16_in_tf_data": _stream(images, batch, function(fused("bfloat16"))),
        "fused_bfloat16": _calls(images, batch, function(fused("bfloat16"))),
    }


def measure(size: int, batch: int, pairs: int, seconds: float, peer: bool) -> dict:
    """Returns images per second of every side, and medians of the ratios over the rounds."""
    images = photo_tiles(max(batch, 256), size)
    sides = sides_of(images, batch)
    with tempfile.TemporaryDirectory() as folder:
        np.save(file := str(Path(folder) / "images.npy"), images)
        settings = {
            "images": file,
            "size": size,
            "batch": batch,
            "kernel": kernel_size(size),
            "uncounted": _UNCOUNTED,
        }
        peers = {}
        if peer:
            for library in ("torchvision", "torchvision_v2", "albumentations", "kornia"):
                peers[library] = Peer("torch_views", library=library, **settings)
            for mode in compile_modes()[:1]:  # there is no matrix product to tune
                peers["kornia_compiled"] = Peer(
                    "torch_views", library="kornia", **settings, compiled=mode
                )
    speeds = take_turns(sides | peers, pairs, seconds=seconds)
    result = {
        "benchmark": "views",
        "size": size,
        "batch": batch,
        "images_per_second": rounded(speeds, batch),
    }
    for base in ("keras_cv", *peers):
        result[f"against_{base}"] = {
            name: median_ratio(speeds, name, base)
            for name in speeds
            if name.startswith(("keras", "fused")) and name != base
        }
    if peers:
        result["fastest_peer"] = fastest(speeds, peers)
        result["versions"] = {
            name: version for side in peers.values() for name, version in side.versions.items()
        }
    return result | {"linear_against_exact": exact_difference(images[:128])}


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.views", description=__doc__)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side in a round")
    parser.add_argument(
        "--peer",
        action="store_true",
        help="also torchvision, albumentations and kornia (make peers)",
    )
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
