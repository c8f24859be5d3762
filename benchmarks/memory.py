"""`python -m benchmarks.memory`: the most memory that training takes at STL-10's size, images held
or read anew each time.

It writes 100,000 made-up JPEGs of 96 px into a temporary folder, opens them with the STL-10 config
as a run does, and trains some steps; each way in a process of its own.
"""

import argparse
import json
import resource
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.turns import in_process

_SIZE = 96
_STEPS = 12
_FOLDERS = 100


def write_photos(root: Path, count: int) -> None:
    """JPEGs of smooth noise, in folders of a hundredth of them each."""

    def write(folder):
        rng = np.random.default_rng(folder)
        (root / f"{folder:02}").mkdir()
        for number in range(folder, count, _FOLDERS):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((_SIZE, _SIZE), Image.Resampling.BICUBIC).save(
                root / f"{folder:02}" / f"{number:06}.jpg"
            )

    with ThreadPoolExecutor() as threads:
        list(threads.map(write, range(_FOLDERS)))


def _train(root: str, cache: str, engine: str, encoder: str) -> None:
    """Opens and trains, then prints this process's peak in GB."""
    from byol_tf.config.loading import load_config
    from byol_tf.devices import prepare_environment

    prepare_environment()
    from byol_tf.models.ema import TargetUpdate, constant_tau
    from byol_tf.runs.data import train_batches
    from byol_tf.train.experiment import Experiment

    keys = {
        "data.source": "folder",
        "data.root": root,
        "data.archive": "null",
        "data.image_size": _SIZE,
        "data.cache": cache,
    }
    keys |= {"views.engine": engine, "encoder.name": encoder, "training.batch_size": 64}
    keys["encoder.padding"] = "same"  # which the small network takes too; it costs no memory
    config = load_config("stl10", [f"{key}={value}" for key, value in keys.items()])
    experiment = Experiment(config, Path(root).parent / "run")
    experiment.prepare()
    opened = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batches = train_batches(config, experiment.source.pretrain)
    experiment.model.fit(
        batches,
        steps_per_epoch=_STEPS,
        callbacks=[TargetUpdate(constant_tau(0.99))],
        verbose=0,
        shuffle=False,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images = len(experiment.source.pretrain)
    print(
        json.dumps(
            {"images": images, "opened_gb": round(opened / 1e6, 2), "peak_gb": round(peak / 1e6, 2)}
        )
    )


def measure(images: int, engine: str, encoder: str) -> dict:
    """Peak resident memory in GB of both ways."""
    result = {"benchmark": "memory", "encoder": encoder, "engine": engine, "batch": 64}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        root.mkdir()
        write_photos(root, images)
        for cache, name in (("none", "streaming"), ("memory", "in_memory")):
            words = ["--of", root, cache, "--engine", engine, "--encoder", encoder]
            result[name] = in_process("benchmarks.memory", *words)
    return result


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--engine", choices=("keras", "keras_cv", "fused"), default="keras")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument(
        "--of",
        nargs=2,
        metavar=("ROOT", "CACHE"),
        help="what the processes that are measured are called with",
    )
    options = parser.parse_args()
    if options.of:
        _train(*options.of, options.engine, options.encoder)
    else:
        print(json.dumps(measure(options.images, options.engine, options.encoder)))


if __name__ == "__main__":
    main()
