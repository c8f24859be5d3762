"""`python -m benchmarks.decode`: images a second, each with both crops of the BYOL recipe, from JPEGs of about ImageNet's size.

Decoded whole by Pillow against decoded where the crops lie, in turns in one process; the ratio is the median of the pairs. The JPEGs are
scikit-learn's two photographs, resized. Files come out of the page cache: what a disk adds is not in it.
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

from PIL import Image

from pipelines.batches import crop_batches
from pipelines.policy import preset
from pipelines.sources import Images, LazyImages, open_source

_SEED = 0
_FILES = 64
_QUALITY = 95
_MADE_AHEAD = 4
"""Batches that the stream holds ready when its turn begins: taken before the clock starts."""


def write_photos(folder: Path, height: int, width: int) -> None:
    """Writes JPEGs of `height` x `width` pixels and a few less, so that no two have one size."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    for number in range(_FILES):
        size = (width - number % 8, height - number // 8)
        photos[number % len(photos)].resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=_QUALITY)


def _stream(images: Images, size: int, batch: int) -> Callable[[int], None]:
    iterator = iter(crop_batches(images, preset("byol"), size, batch, _SEED))

    def run(batches):
        for _ in range(batches):
            next(iterator)

    return run


def measure(height: int, width: int, size: int, batch: int, pairs: int, batches: int) -> dict:
    """Images a second of both sides, and the median of their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), height, width)
        images = open_source("folder", root=folder, seed=_SEED).pretrain
        sides = {"whole": LazyImages(len(images), images.__getitem__), "decode_and_crop": images}
        speeds = {name: [] for name in sides}
        for pair in range(pairs):
            # A stream of its own each time: the other's would go on decoding ahead.
            for name in sides if pair % 2 else reversed(sides):
                run = _stream(sides[name], size, batch)
                run(2 * _MADE_AHEAD)
                began = time.perf_counter()
                run(batches)
                speeds[name].append(batch * batches / (time.perf_counter() - began))
                del run
        kilobytes = statistics.mean(path.stat().st_size for path in Path(folder).iterdir()) / 1e3
    ratios = [part / whole for part, whole in zip(speeds["decode_and_crop"], speeds["whole"], strict=True)]
    return {
        "benchmark": "decode",
        "jpeg": {"height": height, "width": width, "kilobytes": round(kilobytes)},
        "size": size,
        "batch": batch,
        "images_per_second": {name: [round(speed) for speed in measured] for name, measured in speeds.items()},
        "against_whole": round(statistics.median(ratios), 2),
    }


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__)
    parser.add_argument("--height", type=int, default=400)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batches", type=int, default=40, help="of each side in a pair")
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
