"""Draws docs/images/architecture.png from the code: layers, packages and their imports.

The rows are the layers of the import-linter contract in setup.cfg. An arrow is a direct import
between two packages; one that follows from others (a imports b, b imports c, a imports c) isn't
drawn, so that the picture stays readable.

    python docs/draw_architecture.py
"""

import configparser
import sys
from pathlib import Path

import grimp
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this tree, wherever it is called from
PICTURE = ROOT / "docs" / "images" / "architecture.png"
WIDTH, HEIGHT, GAP = 2.1, 0.62, 0.6  # of a box, and between rows, in inches
PURPOSE = {
    "clusters": "workers of a scheduler",
    "command_line": "how each command ends",
    "compare": "runs side by side",
    "compat": "private names of Keras",
    "constants": "of configs and networks",
    "config": "schema, loading, messages",
    "convert": "encoders of others",
    "devices": "strategy, precision, seeds",
    "doctor": "checks of the machine",
    "embed": "photos to vectors",
    "errors": "exceptions, exit codes",
    "evaluate": "linear, kNN, fine-tuning",
    "export": "SavedModel, LiteRT, ONNX",
    "logs": "log lines of the commands",
    "native_output": "TensorFlow's own log",
    "pack": "folders into shards",
    "models": "BYOL, losses, networks",
    "predict": "classes of photos",
    "pipelines": "images to batches of views",
    "report": "the page of a run",
    "runs": "run folder, checkpoints",
    "study": "tables of papers",
    "train": "from a config to a run",
}


def layers() -> list[list[str]]:
    """Returns the rows of the layers contract, the highest first."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    rows = setup["importlinter:contract:layers"]["layers"].strip().splitlines()
    return [[name.strip() for name in row.split("|")] for row in rows]


def imports(packages: list[str]) -> set[tuple[str, str]]:
    """Returns (importer, imported) for every direct import between two of the packages."""
    graph = grimp.build_graph("byol_tf", "pipelines")
    return {
        (importer, imported)
        for importer in packages
        for imported in packages
        if importer != imported
        and graph.direct_import_exists(importer=importer, imported=imported, as_packages=True)
    }


def reduced(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Returns the edges without those that follow from longer paths."""

    def reaches(start: str, goal: str) -> bool:
        return any(a == start and (b == goal or reaches(b, goal)) for a, b in edges)

    return {
        (a, c) for a, c in edges if not any(x == a and b != c and reaches(b, c) for x, b in edges)
    }


def draw() -> None:
    """Writes the picture."""
    rows = layers()
    widest = max(map(len, rows))
    figure, axis = plt.subplots(figsize=(widest * (WIDTH + 0.6), len(rows) * (HEIGHT + GAP)))
    place = {}
    for number, row in enumerate(rows):
        y = -number * (HEIGHT + GAP)
        for column, package in enumerate(row):
            x = (column - (len(row) - 1) / 2) * (WIDTH + 0.6)
            place[package] = (x, y)
            axis.add_patch(
                FancyBboxPatch(
                    (x - WIDTH / 2, y - HEIGHT / 2),
                    WIDTH,
                    HEIGHT,
                    boxstyle="round,pad=0.02,rounding_size=0.08",
                    facecolor="#eef3fb",
                    edgecolor="#1f5fbf",
                    zorder=2,
                )
            )
            name = package.removeprefix("byol_tf.")
            centred = {"ha": "center", "va": "center", "zorder": 3}
            axis.text(x, y + 0.1, name, weight="bold", size=11, **centred)
            axis.text(x, y - 0.13, PURPOSE[name], size=8, **centred)
    for importer, imported in sorted(reduced(imports(list(place)))):
        (x, y), (u, v) = place[importer], place[imported]
        axis.annotate(
            "",
            (u, v + HEIGHT / 2 + 0.03),
            (x, y - HEIGHT / 2 - 0.03),
            arrowprops={"arrowstyle": "-|>", "color": "#777777", "linewidth": 0.9},
            zorder=1,
        )
    axis.set_xlim(-widest * (WIDTH + 0.6) / 2, widest * (WIDTH + 0.6) / 2)
    axis.set_ylim(-(len(rows) - 0.5) * (HEIGHT + GAP), HEIGHT)
    axis.axis("off")
    figure.savefig(PICTURE, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    draw()
