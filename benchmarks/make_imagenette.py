"""Makes the folder `imagenette` of docs/results from fastai's archive.

    python -m benchmarks.make_imagenette imagenette2-160.tgz imagenette

The archive is https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz (99 MB): 9,469 photos
to train on and 3,925 to validate on, of ten of ImageNet's classes. The folder has `unlabeled/`,
7,000 of the former; `train/<class>/`, 100 a class of the rest of them; and `test/<class>/`, 200 a
class of the latter. Each photo is squashed to a square, as those of docs/results are. Which photos
are taken depends on their names alone. They aren't the same 10,000 as in docs/results, so figures
will agree within their spread only.
"""

import argparse
import hashlib
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

SIDE, UNLABELLED, TRAIN, TEST = 160, 7_000, 100, 200
CLASSES = {
    "n01440764": "tench",
    "n02102040": "english_springer",
    "n02979186": "cassette_player",
    "n03000684": "chain_saw",
    "n03028079": "church",
    "n03394916": "french_horn",
    "n03417042": "garbage_truck",
    "n03425413": "gas_pump",
    "n03445777": "golf_ball",
    "n03888257": "parachute",
}
_PHOTO = re.compile(r"(?:\./)?imagenette2(?:-\d+)?/(train|val)/(n\d{8})/([\w-]+\.JPEG)")


def by_hash(name: str) -> str:
    """A key that orders photos as if at random, the same everywhere."""
    return hashlib.sha256(name.encode()).hexdigest()


def places(names: list[str], unlabelled: int, train: int, test: int) -> dict[str, str]:
    """Says which photo goes where: name in the archive -> path below the folder."""
    members: dict[tuple[str, str], list[str]] = {}
    for name in names:
        if match := _PHOTO.fullmatch(name):
            members.setdefault((match[1], match[2]), []).append(name)
    found, rest = {}, []
    for wnid, label in CLASSES.items():
        for part, split, count in (("val", "test", test), ("train", "train", train)):
            photos = sorted(members.get((part, wnid), []), key=by_hash)
            if len(photos) < count:
                raise SystemExit(
                    f"{part}/{wnid}: expected {count} photos or more; found {len(photos)}"
                )
            found |= {name: f"{split}/{label}/{Path(name).name}" for name in photos[:count]}
            rest += photos[count:] if part == "train" else []
    if len(rest) < unlabelled:
        raise SystemExit(f"train/: expected {unlabelled:,} photos beside the labelled ones or more")
    rest.sort(key=by_hash)
    return found | {name: f"unlabeled/{Path(name).name}" for name in rest[:unlabelled]}


def make(
    archive: Path, folder: Path, unlabelled: int = UNLABELLED, train: int = TRAIN, test: int = TEST
) -> None:
    """Writes the folder, which has to be new."""
    folder.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        taken = places([member.name for member in tar if member.isfile()], unlabelled, train, test)
        for member in tar:
            if member.name in taken:
                path = folder / taken[member.name]
                path.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(tar.extractfile(member)) as photo:
                    squashed = photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                squashed.save(path, "JPEG", quality=90)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the two paths from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path, help="that doesn't exist yet")
    options = parser.parse_args(arguments)
    make(options.archive, options.folder)
    print(f"{options.folder}: {UNLABELLED:,} photos without labels, {TRAIN} and {TEST} a class")


if __name__ == "__main__":
    main()
