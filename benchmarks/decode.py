"""`python -m benchmarks.decode`: throughput of the host for JPEGs of about ImageNet's size.

Images per second, each with two crops for fused views (`views.engine=fused`), decoded completely by
Pillow or only where the crops lie; and with two views by keras-cv. They take turns; ratios are
medians of the rounds. The JPEGs are two photographs of scikit-learn, resized. Files come from the
page cache: the time of a disk is not included.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from byol_tf.devices import prepare_environment

prepare_environment()

import tensorflow as tf
from PIL import Image

from benchmarks.turns import Side, median_ratio, rounded, take_turns
from pipelines.batches import crop_batches, view_batches
from pipelines.policy import preset
from pipelines.sources import LazyImages, open_source

_SEED = 0
_FILES = 64
_QUALITY = 95
_UNCOUNTED = 8
"""Batches before the measurement: more than a stream prefetches."""


def write_photos(folder: Path, height: int, width: int) -> None:
    """Writes JPEGs of `height` x `width` pixels and a few less, so that no two have one size."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    for number in range(_FILES):
        size = (width - number % 8, height - number // 8)
        photos[number % len(photos)].resize(size, Image.Resampling.BICUBIC).save(
            folder / f"{number}.jpg", quality=_QUALITY
        )


def _side(stream: Callable[[], tf.data.Dataset]) -> Side:
    """Returns a side with a new stream each time: another side's would continue to decode ahead."""

    def side(batches):
        iterator = iter(stream())
        for _ in range(_UNCOUNTED):
            next(iterator)
        began = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        return time.perf_counter() - began

    return side


def measure(height: int, width: int, size: int, batch: int, pairs: int, batches: int) -> dict:
    """Returns images per second of all sides, and medians of the ratios."""
    policies = preset("byol")
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), height, width)
        images = open_source("folder", root=folder, seed=_SEED).pretrain
        whole = LazyImages(len(images), images.__getitem__)
        sides = {
            "keras_cv": _side(
                lambda: view_batches(
                    images, policies, size, batch, _SEED, *((0.5,) * 3,) * 2, engine="keras_cv"
                )
            ),
            "crops_of_whole": _side(lambda: crop_batches(whole, policies, size, batch, _SEED)),
            "crops": _side(lambda: crop_batches(images, policies, size, batch, _SEED)),
        }
        speeds = take_turns(sides, pairs, batches)
        kilobytes = statistics.mean(path.stat().st_size for path in Path(folder).iterdir()) / 1e3
    return {
        "benchmark": "decode",
        "jpeg": {"height": height, "width": width, "kilobytes": round(kilobytes)},
        "size": size,
        "batch": batch,
        "images_per_second": rounded(speeds, batch),
        "against_crops_of_whole": median_ratio(speeds, "crops", "crops_of_whole"),
        "against_keras_cv": median_ratio(speeds, "crops", "keras_cv"),
    }


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__)
    parser.add_argument("--height", type=int, default=400)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batches", type=int, default=20, help="of each side in a pair")
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
