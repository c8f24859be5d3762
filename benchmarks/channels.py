"""`python -m benchmarks.channels --photos DIR`: the same photos as RGB, 5 channels and 16 bits.

The photos of `DIR/{unlabeled,train,test}` are written as three sets: RGB in PNG files; five
channels, RGB and two mixtures of them, as pages of TIFF files; and RGB of 16 bits whose numbers lie
between 1,000 and 9,000, as those of a satellite may. Each is trained on equally long, by the
command, and the accuracies of its probe are printed as a line of JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

_MIXTURES = np.array([[0.6, 0.3, -0.4], [-0.3, 0.5, 0.6]])
_LOW, _HIGH = 1000.0, 9000.0
SETS = {
    "rgb": ["data.channels=3"],
    "five": ["data.channels=5"],
    "sixteen": ["data.depth=16", f"data.range=[{_LOW:g},{_HIGH:g}]"],
}
"""Name of each set -> its keys of a config."""


def write_set(name: str, photos: Path, folder: Path, size: int, counts: dict[str, int]) -> None:
    """Writes some photos of each split as one of `SETS`.

    Args:
        name: of the set.
        photos: folder with the splits.
        folder: to write them to; existing files stay.
        size: side in pixels.
        counts: split -> number of photos, evenly spaced over those there are.
    """
    import tifffile

    for split, count in counts.items():
        files = sorted(path for path in (photos / split).rglob("*") if path.is_file())
        for index in np.unique(np.linspace(0, len(files) - 1, count).astype(int)):
            target = folder / files[index].relative_to(photos).with_suffix(".tif")
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(files[index]) as photo:
                pixels = np.asarray(photo.convert("RGB").resize((size, size), Image.BICUBIC))
            if name == "rgb":
                Image.fromarray(pixels).save(target.with_suffix(".png"))
            elif name == "five":
                mixed = np.clip(pixels @ _MIXTURES.T, 0, 255).astype(np.uint8)
                channels = np.concatenate([pixels, mixed], axis=2)
                tifffile.imwrite(
                    target,
                    np.moveaxis(channels, 2, 0),
                    photometric="minisblack",
                    compression="zlib",
                )
            else:
                deep = np.rint(_LOW + pixels / 255.0 * (_HIGH - _LOW)).astype(np.uint16)
                tifffile.imwrite(target, deep, photometric="rgb", compression="zlib")


def train(name: str, data: Path, run: Path, settings: list[str]) -> dict:
    """Trains `few-photos-byol` on a set, and returns the run's `result.json`."""
    from byol_tf.config.loading import load_config
    from byol_tf.train.normalization import measure_channels

    settings = [f"data.root={data}", *SETS[name], *settings]
    config = load_config("few-photos-byol", settings)
    for key, numbers in zip(("mean", "std"), measure_channels(config), strict=True):
        settings.append(f"views.{key}={numbers}")
    command = [sys.executable, "-m", "byol_tf.train", "--config", "few-photos-byol"]
    command += ["--run-dir", str(run)]
    for setting in settings:
        command += ["--set", setting]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return json.loads((run / "result.json").read_text())


def main(arguments: list[str] | None = None) -> int:
    """Trains on each set in turn, and prints a line of JSON for each; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.channels", description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="folder for sets and runs (default: temporary)")
    parser.add_argument("--unlabelled", type=int, default=1000)
    parser.add_argument("--labelled", type=int, default=400, help="in train and in test, each")
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args(arguments)
    counts = {
        "unlabeled": options.unlabelled,
        "train": options.labelled,
        "test": options.labelled,
    }
    settings = [
        f"training.epochs={options.epochs}",
        f"data.image_size={options.size}",
        f"views.size={options.size * 3 // 4}",
        f"probe.every_epochs={options.epochs}",
        "run.report=false",
        *options.settings,
    ]
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        for name in options.sets:
            write_set(name, options.photos, out / name, options.size, counts)
            for seed in range(options.seeds):
                run = out / "runs" / f"{name}-{seed}"
                result = train(name, out / name, run, [*settings, f"seed={seed}"])
                keys = ("untrained_probe_accuracy", "probe_accuracy", "knn_accuracy", "seconds")
                line = {"benchmark": "channels", "set": name, "seed": seed}
                print(json.dumps(line | {key: result[key] for key in keys}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
