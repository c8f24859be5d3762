"""Draws docs/images/nearest.png: photos and their nearest neighbours before and after training.

    python examples/draw_slides.py slides
    byol train --config few-photos-byol --set data.root=slides --run-dir runs/slides
    python docs/draw_nearest.py runs/slides

The neighbours are among the run's test photos; those of the first one of each shown class are
drawn, and a green bar marks the same class. The command also prints how many of the eight nearest
are of the same class, over all test photos.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this tree, wherever it is called from

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from byol_tf import RunFolder, load_config, load_run_encoder, open_source
from byol_tf.evaluate.features import embed
from byol_tf.report.representations import start_model

PICTURE = ROOT / "docs" / "images" / "nearest.png"
SHOWN = ("rod", "sickle", "spiral")
COUNT, SIDE, GAP, BAR, LABEL = 8, 96, 6, 6, 150  # neighbours; pixels


def nearest(features: np.ndarray) -> np.ndarray:
    """Returns the indices of the most similar other rows by cosine, `[n, COUNT]`."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    return np.argsort(-cosines, axis=1)[:, :COUNT]


def draw(run: Path) -> None:
    """Embeds the test photos of a run by its encoder as it started and as it ended."""
    folder = RunFolder(run)
    config = load_config(folder.config)
    photos = open_source(source="folder", root=config.data.root, image_size=SIDE)
    labels = np.asarray(photos.test.labels)
    rows = {
        "before training": nearest(embed(start_model(config), photos.test)),
        "after training": nearest(embed(load_run_encoder(config, folder), photos.test)),
    }
    for name, found in rows.items():
        print(f"{name}: {(labels[found] == labels[:, None]).sum(1).mean():.1f} of {COUNT}")

    cell, high = SIDE + GAP, SIDE + BAR + GAP
    size = (LABEL + (COUNT + 1) * cell + 2 * GAP, (2 * high + 2 * GAP) * len(SHOWN))
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
    for number, kind in enumerate(SHOWN):
        query = int(np.flatnonzero(labels == photos.class_names.index(kind))[0])
        top = number * (2 * high + 2 * GAP)
        sheet.paste(Image.fromarray(photos.test[query]), (0, top + high // 2))
        for row, (name, found) in enumerate(rows.items()):
            y = top + row * high
            pen.text((cell + 2 * GAP, y + SIDE // 2), name, "#333333", font, "lm")
            for place, index in enumerate(found[query]):
                x = LABEL + (place + 1) * cell
                sheet.paste(Image.fromarray(photos.test[int(index)]), (x, y))
                if labels[index] == labels[query]:
                    pen.rectangle((x, y + SIDE, x + SIDE - 1, y + SIDE + BAR - 1), "#2a9d4a")
    sheet.quantize(96, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
