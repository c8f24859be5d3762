"""Makes a folder to choose settings by, of training photos alone.

    python -m benchmarks.development_split cifar10/train development --labelled 500 --test 500

From a folder with one subfolder for each class it takes, of each class, `--test` photos for
`test/<class>/` and `--labelled` others for `train/<class>/`. `unlabeled/` has these others and all
the rest, without their classes. So settings are chosen without a look at the photos that the
figures are of. Which photos are taken depends on their names alone.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.make_imagenette import by_hash


def split_photos(source: Path, folder: Path, labelled: int, test: int) -> int:
    """Copies the photos into a new folder.

    Args:
        source: the folder whose subfolders are classes.
        folder: the one to make.
        labelled: number of photos of each class in `train`.
        test: number of photos of each class in `test`.

    Returns:
        The number of photos without labels.

    Raises:
        SystemExit: if the folder exists, or a class has too few photos.
    """
    if folder.exists():
        raise SystemExit(f"{folder}: expected a folder that doesn't exist yet")
    classes = {
        path.name: sorted(path.iterdir(), key=lambda photo: by_hash(photo.name))
        for path in sorted(source.iterdir())
        if path.is_dir()
    }
    for name, photos in classes.items():
        if len(photos) < test + labelled:
            raise SystemExit(
                f"{source / name}: expected {test + labelled} photos or more; found {len(photos)}"
            )
    unlabelled = folder / "unlabeled"
    unlabelled.mkdir(parents=True)
    for name, photos in classes.items():
        chosen = {"test": photos[:test], "train": photos[test : test + labelled]}
        for split, part in chosen.items():
            (folder / split / name).mkdir(parents=True)
            for photo in part:
                shutil.copy(photo, folder / split / name / photo.name)
        for photo in photos[test:]:  # file names repeat from class to class
            shutil.copy(photo, unlabelled / f"{name}_{photo.name}")
    return sum(len(photos) - test for photos in classes.values())


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads paths and numbers from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.development_split", description=__doc__.splitlines()[0]
    )
    parser.add_argument("source", type=Path, help="a folder with a subfolder for each class")
    parser.add_argument("folder", type=Path, help="that doesn't exist yet")
    parser.add_argument("--labelled", type=int, default=500, help="photos of each class to fit on")
    parser.add_argument("--test", type=int, default=500, help="photos of each class to test on")
    options = parser.parse_args(arguments)
    count = split_photos(options.source, options.folder, options.labelled, options.test)
    print(
        f"{options.folder}: {count:,} photos without labels, {options.labelled} and {options.test} "
        "a class"
    )


if __name__ == "__main__":
    main()
