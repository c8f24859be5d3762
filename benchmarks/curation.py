"""Measures `embed --duplicates` on planted copies, and `embed --pick` against random photos.

    python -m benchmarks.curation --encoder runs/few-photos --photos imagenette/unlabeled
    python -m benchmarks.curation --encoder runs/few-photos --labelled imagenette/train
    python -m benchmarks.curation --pairs 20000

Copies: of 3,000 photos, chosen at random, 250 get seven copies each. Recall is the fraction of
copies that are in one group with their photo; precision that of the photos to drop that are copies
of the one to keep. Without pixels: the same with a cosine alone.

Pick: half of the photos, chosen at random ten times; as many labels as each line says, of picked
and of random photos, and the accuracy of the classes that `--few` predicts for the others.

Pairs: processor seconds for all pairs of random embeddings of 256 numbers.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageEnhance

from byol_tf.embed.__main__ import main as embed
from byol_tf.embed.clusters import pick_photos
from byol_tf.embed.duplicates import find_duplicates
from byol_tf.embed.few_shot import fit_few_shot
from byol_tf.embed.vectors import normalized
from byol_tf.runs.files import read_csv

PHOTOS, PLANTED, SEEDS = 3_000, 250, range(10)


def _crop(image: Image.Image, left: float, top: float, right: float, below: float) -> Image.Image:
    width, height = image.size
    box = (left * width, top * height, (1 - right) * width, (1 - below) * height)
    return image.crop(tuple(map(round, box)))


COPIES = {
    "JPEG of quality 40": (lambda image: image, 40),
    "half the size": (lambda image: image.resize((image.width // 2, image.height // 2)), 85),
    "5% cropped on each side": (lambda image: _crop(image, 0.05, 0.05, 0.05, 0.05), 92),
    "10% cropped in a corner": (lambda image: _crop(image, 0.1, 0, 0, 0.1), 92),
    "25% brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.25), 92),
    "mirrored": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 92),
    "3% cropped, squashed to 160 px, 15% darker, quality 70": (
        lambda image: ImageEnhance.Brightness(
            _crop(image, 0.03, 0.03, 0.03, 0.03).resize((160, 160))
        ).enhance(0.85),
        70,
    ),
}
"""Changes that make a copy, each with the quality of its JPEG."""


def measure_duplicates(encoder: str, photos: Path) -> None:
    paths = sorted(path for path in photos.rglob("*") if path.is_file())
    random.Random(0).shuffle(paths)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        for number, path in enumerate(paths[:PHOTOS]):
            (images / f"{number:04}.photo{path.suffix}").write_bytes(path.read_bytes())
            if number < PLANTED:
                original = Image.open(path).convert("RGB")
                for copy, (make, quality) in enumerate(COPIES.values()):
                    make(original).save(images / f"{number:04}.{copy}.jpg", quality=quality)
        for option in ([], ["0.9"], ["0.95"], ["0.97"], ["0.99"]):
            arguments = ["--encoder", encoder, "--images", str(images), "--out", f"{folder}/out"]
            assert embed([*arguments, "--duplicates", *option]) == 0
            _print_duplicates(Path(folder, "out", "duplicates.csv"), " ".join(option))


def _print_duplicates(table: Path, cosine: str) -> None:
    group_of, kept, drops = {}, {}, []
    for row in read_csv(table, ("group", "path", "suggestion")):
        name = row["path"]
        group_of[name] = row["group"]
        if row["suggestion"] == "keep":
            kept[row["group"]] = name
        else:
            drops.append(name)
    photo_group = {name[:4]: group for name, group in group_of.items() if ".photo" in name}
    found = {
        copy: [
            group_of.get(f"{number:04}.{copy}.jpg", "") == photo_group.get(f"{number:04}")
            for number in range(PLANTED)
        ]
        for copy in range(len(COPIES))
    }
    right = [name[:4] == kept[group_of[name]][:4] for name in drops]
    print(f"cosine {cosine}, whatever the pixels" if cosine else "cosine 0.9 and pixels")
    print(
        f"  precision {np.mean(right):.4f} of {len(drops)}; recall {np.mean([*found.values()]):.4f}"
    )
    for name, copies in zip(COPIES, found.values(), strict=True):
        print(f"  {name}: recall {np.mean(copies):.3f}")


def k_centre(embeddings: np.ndarray, count: int) -> list[int]:
    """The photo nearest to the mean, then each time the one farthest from those picked."""
    vectors = normalized(embeddings)
    picked = [int((vectors @ vectors.mean(axis=0)).argmax())]
    nearest = vectors @ vectors[picked[0]]
    while len(picked) < count:
        picked.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, vectors @ vectors[picked[-1]])
    return picked


def measure_pick(encoder: str, labelled: Path) -> None:
    with tempfile.TemporaryDirectory() as out:
        assert embed(["--encoder", encoder, "--images", str(labelled), "--out", out]) == 0
        embeddings = np.load(Path(out, "embeddings.npz"))["embeddings"]
        rows = read_csv(Path(out, "index.csv"), ("path",))
    classes = np.array([row["path"].split("/")[0] for row in rows])
    for count in (20, 50, 100):
        accuracies: dict[str, list[float]] = {"picked": [], "random": [], "k-centre": []}
        for seed in SEEDS:
            draw = np.random.default_rng(seed)
            half = draw.permutation(len(classes))[: len(classes) // 2]
            vectors, truth = embeddings[half], classes[half]
            for name, labels in {
                "picked": pick_photos(vectors, count),
                "random": draw.choice(len(half), count, replace=False).tolist(),
                "k-centre": k_centre(vectors, count),
            }.items():
                result = fit_few_shot(vectors, {row: truth[row] for row in labels})
                predictions = np.array(result.classes)[result.probabilities.argmax(axis=1)]
                right = np.delete(predictions == truth, labels)
                accuracies[name].append(float(right.mean()))
        texts = (
            f"{name} {100 * np.mean(values):.1f} +- {100 * np.std(values, ddof=1):.1f}%"
            for name, values in accuracies.items()
        )
        print(f"{count} labels of {len(classes) // 2}: {', '.join(texts)}", flush=True)


def measure_pairs(count: int) -> None:
    embeddings = np.random.default_rng(0).normal(size=(count, 256)).astype(np.float32)
    photos = [SimpleNamespace(bytes=0)] * count
    start = time.process_time()
    find_duplicates(SimpleNamespace(embeddings=embeddings, photos=photos), 0.9)
    seconds = time.process_time() - start
    hours = seconds * (1e6 / count) ** 2 / 3600
    print(f"{count:,} photos: {seconds:.1f} s of a core; 1,000,000: {hours:.1f} hours of a core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--pairs", type=int)
    options = parser.parse_args()
    if options.photos:
        measure_duplicates(options.encoder, options.photos)
    if options.labelled:
        measure_pick(options.encoder, options.labelled)
    if options.pairs:
        measure_pairs(options.pairs)


if __name__ == "__main__":
    main()
