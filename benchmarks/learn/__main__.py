"""`python -m benchmarks.learn --photos DIR --out DIR --peer`: time to accuracy.

BYOL and SimCLR of byol_tf and, with `--peer`, of lightly in PyTorch (`make peers`), one after the
other: same network and initial weights, photos, parameters of the views, optimizer, schedules,
batch, machine and number of cores. DIR needs train/<class>/; a part of these photos, drawn by seed
0, is trained on without labels, and two others are labelled: on the frozen features of one
scikit-learn's logistic regression is fitted, on those of the other it is tested.

Each measurement is a row of OUT/results.csv: seconds are those of training alone, from its first
step on, without evaluation. The same command skips trainings that are there. It prints the seconds
in which ours reached the peer's last accuracy as a part of the peer's, and draws
OUT/accuracy.png.

What differs between the sides: the order of the photos; brightness, which is an offset in ours and
a factor in torchvision; what runs beside them on a machine that isn't idle, for which there are
`cpu_seconds`.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.peers import peer_python
from byol_tf.config.loading import load_config, resolved_json

NETWORKS = {
    "convnet": ["encoder.name=convnet", "encoder.width=1"],
    "residual": ["encoder.name=benchmarks.learn.networks:residual", "encoder.width=1"],
    "resnet18": [
        "encoder.name=resnet18",
        "encoder.width=1",
        "encoder.stem=3x3",
        "encoder.padding=symmetric",
    ],
}
METHODS = {
    "byol": [],
    "simclr": [
        "objective.target=online_with_gradient",
        "objective.negatives=1",
        "objective.temperature=0.2",
        "objective.weight=1.25",
        "predictor.kind=none",
        "tau={}",
    ],
}
"""SimCLR's weight, 1 / (4 temperature), makes its loss that of lightly and a constant."""
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""C of the logistic regression, chosen on held-out labels of those that it is fitted on."""
COLUMNS = ("side", "method", "seed", "epoch", "images", "seconds", "cpu_seconds", "top1")


def recipe(options: argparse.Namespace, method: str, seed: int) -> str:
    """Returns the config of a training, of both sides, as JSON."""
    views = {
        "crop_area": [0.2, 1.0],
        "saturation": 0.4,
        "blur_probability": 0,
        "solarize_probability": 0,
    }
    changes = [
        f"name=learn-{method}",
        f"seed={seed}",
        f"views.size={options.size}",
        *(f"views.{view}.{k}={v}" for view in ("first", "second") for k, v in views.items()),
        *NETWORKS[options.network],
        "optimizer.warmup_epochs=0.5",
        f"training.epochs={max(options.checkpoints)}",
        f"training.batch_size={options.batch}",
        "devices.precision=float32",
        "run.report=false",
        *METHODS[method],
        *options.set,
    ]
    return resolved_json(load_config("few-photos-byol", changes))


def write_photos(options: argparse.Namespace, file: Path) -> None:
    """Writes photos of train/ as the arrays `unlabelled`, `train` and `test`, and labels."""
    from pipelines.sources import open_source, subset

    source = open_source("folder", root=options.photos, image_size=options.size, cache="none")
    counts = (options.images, options.labels, options.test_images)
    if len(source.train) < sum(counts):
        sys.exit(
            f"--photos: expected {sum(counts)} photos or more in {options.photos}/train; found "
            f"{len(source.train)}"
        )
    order = np.random.default_rng(0).permutation(len(source.train))
    parts = np.split(order[: sum(counts)], np.cumsum(counts)[:-1])
    arrays = {}
    for name, indices in zip(("unlabelled", "train", "test"), parts, strict=True):
        part = subset(source.train, indices)
        arrays[name] = np.stack([part[index] for index in range(len(part))])
        arrays[f"{name}_labels"] = part.labels
    np.savez(file, **arrays)


def accuracy(features: Path, photos: Path) -> float:
    """Returns the judge's accuracy on the test photos."""
    from byol_tf.evaluate.logistic import logistic_protocol

    labels = np.load(photos)
    arrays = np.load(features)
    return logistic_protocol(
        arrays["train"],
        labels["train_labels"],
        arrays["test"],
        labels["test_labels"],
        seed=0,
        strengths=STRENGTHS,
    )["top1"]


def read_rows(file: Path) -> list[dict[str, str]]:
    """Returns the rows measured so far."""
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def check_settings(options: argparse.Namespace) -> None:
    """Exits if the folder has results of other settings; keeps these."""
    free = ("out", "peer", "methods", "seeds")
    settings = {name: value for name, value in vars(options).items() if name not in free}
    file = options.out / "settings.json"
    if not file.exists():
        file.write_text(json.dumps(settings, indent=1) + "\n")
    for name, kept in json.loads(file.read_text()).items():
        if settings[name] != kept:
            sys.exit(
                f"--out: {options.out} has results of --{name.replace('_', '-')} {kept}; expected "
                f"the same or another folder; received {settings[name]}"
            )


def measure(options: argparse.Namespace, side: str, method: str, seed: int) -> None:
    """Trains and evaluates one side, unless its rows are there."""
    results, photos = options.out / "results.csv", options.out / "photos.npz"
    key = {"side": side, "method": method, "seed": str(seed)}
    done = {row["epoch"] for row in read_rows(results) if key.items() <= row.items()}
    if done >= {str(epoch) for epoch in options.checkpoints}:
        return
    folder = options.out / f"{method}-{seed}"
    folder.mkdir(exist_ok=True)
    config = folder / "config.json"
    config.write_text(recipe(options, method, seed))
    job = {
        "config": str(config),
        "photos": str(photos),
        "out": str(folder),
        "checkpoints": options.checkpoints,
    }
    if side == "ours":
        command = [sys.executable, "-m", "benchmarks.learn.ours"]
    else:
        command = [peer_python(), "-m", "benchmarks.peers.torch_learn"]
        job |= {"network": options.network, "threads": options.threads}
    if not (folder / f"{side}-{max(options.checkpoints)}.npz").exists():
        cores = sorted(os.sched_getaffinity(0))[: options.threads]
        subprocess.run(
            [*command, json.dumps(job)],
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    new = not results.exists()
    with results.open("a", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS] * new)
        for epoch in options.checkpoints:
            features = folder / f"{side}-{epoch}.npz"
            arrays = np.load(features)
            row = [side, method, seed, epoch, int(arrays["images"])]
            row += [round(float(arrays[name]), 1) for name in ("seconds", "cpu_seconds")]
            row.append(round(accuracy(features, photos), 4))
            writer.writerow(row)
            print(*row, flush=True)


def curves(rows: list[dict[str, str]]) -> dict[tuple, dict[str, np.ndarray]]:
    """Returns (method, seed, side) -> column -> values in the order of the epochs."""
    found = defaultdict(list)
    for row in rows:
        found[row["method"], row["seed"], row["side"]].append(row)
    return {
        key: {column: np.array([float(row[column]) for row in of_key]) for column in COLUMNS[3:]}
        for key, of_key in found.items()
    }


def time_to(curve: dict[str, np.ndarray], top1: float, column: str) -> float | None:
    """Returns when a curve first reaches an accuracy, on straight lines between its points."""
    times, accuracies = curve[column], curve["top1"]
    reached = np.flatnonzero(accuracies >= top1)
    if not len(reached):
        return None
    after = reached[0]
    if after == 0:
        return float(times[0])
    part = (top1 - accuracies[after - 1]) / (accuracies[after] - accuracies[after - 1])
    return float(times[after - 1] + part * (times[after] - times[after - 1]))


def report(rows: list[dict[str, str]]) -> list[str]:
    """Returns a line for each training that both sides have."""
    of = curves(rows)
    lines = []
    for method, seed, side in of:
        if side != "peer" or (method, seed, "ours") not in of:
            continue
        ours, peer = of[method, seed, "ours"], of[method, seed, "peer"]
        last = peer["top1"][-1]
        text = (
            f"{method}, seed {seed}: peer's last accuracy {last:.1%}, ours {ours['top1'][-1]:.1%}"
        )
        for column in ("seconds", "cpu_seconds"):
            time = time_to(ours, last, column)
            name, whole = column.replace("_", " "), peer[column][-1]
            text += (
                f"; not reached within ours' {ours[column][-1]:.0f} {name} (peer's {whole:.0f})"
                if time is None
                else f"; reached in {time:.0f} of its {whole:.0f} {name}, {time / whole:.2f}"
            )
        lines.append(text)
    return lines


def draw(rows: list[dict[str, str]], file: Path) -> None:
    """Draws accuracy over seconds, processor seconds and images."""
    import matplotlib.pyplot as plt

    from byol_tf.runs.plots import COLOURS, STYLE, WIDTH, legend_below, save_figure

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.4), sharey=True)
        lines = {}
        for (method, seed, side), curve in curves(rows).items():
            style = {
                "color": COLOURS[("ours", "peer").index(side)],
                "linestyle": {"byol": "-", "simclr": "--"}[method],
                "marker": ".",
            }
            name = f"{ {'ours': 'byol_tf', 'peer': 'lightly'}[side] }, {method}, seed {seed}"
            for axis, column in zip(axes, ("seconds", "cpu_seconds", "images"), strict=True):
                (lines[name],) = axis.plot(curve[column], 100 * curve["top1"], **style)
        axes[0].set(xlabel="seconds of training", ylabel="linear accuracy (%)")
        axes[1].set(xlabel="processor seconds of training")
        axes[2].set(xlabel="images seen")
        legend_below(figure, list(lines.values()), list(lines))
        save_figure(figure, file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the rows that the results lack; prints the ratios and draws the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learn", description=__doc__)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peer", action="store_true", help="also lightly (make peers)")
    parser.add_argument("--network", choices=NETWORKS, default="residual")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", type=int, default=32, help="of photos and views in pixels")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--checkpoints",
        type=int,
        nargs="+",
        default=[0, 1, 2, 4, 6, 8],
        help="epochs to evaluate after; the last ends the training",
    )
    parser.add_argument("--images", type=int, default=25000, help="to train on without labels")
    parser.add_argument("--labels", type=int, default=5000, help="to fit the judge on")
    parser.add_argument("--test-images", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=1, help="cores that each side may use")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a change of the config"
    )
    options = parser.parse_args(arguments)
    if options.threads > (cores := len(os.sched_getaffinity(0))):
        parser.error(f"--threads: expected {cores} or fewer, the cores that may be used")
    options.out.mkdir(parents=True, exist_ok=True)
    check_settings(options)
    if not (options.out / "photos.npz").exists():
        write_photos(options, options.out / "photos.npz")
    for seed in options.seeds:
        for method in options.methods:
            for side in ("ours", "peer") if options.peer else ("ours",):
                measure(options, side, method, seed)
    rows = read_rows(options.out / "results.csv")
    print(*report(rows), sep="\n")
    draw(rows, options.out / "accuracy.png")


if __name__ == "__main__":
    main()
