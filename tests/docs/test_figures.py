"""README's figures are those of `docs/results/figures.json`, and each of these is what the file
that it names holds.

`python -m tests.docs.test_figures` writes README's table of what was measured anew.
"""

import csv
import json
import re
import statistics

import pytest

from tests.docs.pages import ROOT, blocks

README = ROOT / "README.md"
ROWS = json.loads((ROOT / "docs" / "results" / "figures.json").read_text(encoding="utf-8"))["rows"]
TABLE = re.compile(r"(?<=<!-- measured -->\n).*(?=<!-- /measured -->)", re.DOTALL)


def measured() -> str:
    """The table of README."""
    lines = ["| what | command | figure |", "|---|---|---|"]
    for row in ROWS:
        shown = {name: value["value"] for name, value in row["values"].items()}
        lines.append(
            f"| {row['what'].format(**shown)} | {row['command']} | {row['figure'].format(**shown)} "
            "|".replace("|  |", "| |")
        )
    return "\n".join(lines) + "\n"


def recorded(source: dict) -> float:
    """What the file of a figure holds: at a dotted key of a JSON object or line, in a row and
    column of a CSV, or `over` the seeds."""
    path = ROOT / source["file"]
    keys = source["at"].split(".")
    if path.suffix == ".csv":
        with path.open(encoding="utf-8") as file:
            rows = [
                row
                for row in csv.DictReader(file)
                if source["row"].items() <= row.items() and row.get("measure") != "knn"
            ]
        if "over" in source:
            assert len({row["seed"] for row in rows}) == len(rows) > 1
            return {"mean": statistics.mean, "stdev": statistics.stdev}[source["over"]](
                [float(row[source["at"]]) for row in rows]
            )
        (found,) = rows
    else:
        lines = path.read_text(encoding="utf-8")
        found = json.loads(lines.splitlines()[source["line"]] if "line" in source else lines)
    for key in keys:
        found = found[key]
    return float(found) * source.get("times", 1)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["what"][:40])
def test_each_figure_is_what_its_file_holds(row):
    for name, source in row["values"].items():
        shown = source["value"]
        if "says" in source:  # printed by a run of which nothing else was kept
            assert source["says"] in (ROOT / source["file"]).read_text(encoding="utf-8"), name
            assert re.search(rf"(?<![\d.]){re.escape(shown)}(?![\d.]*\d)", source["says"]), name
        else:
            half = 0.5 * 10.0 ** -len(shown.partition(".")[2])
            assert abs(float(shown) - recorded(source)) <= half + 1e-9, (
                name,
                shown,
                recorded(source),
            )


def test_each_row_says_where_it_was_measured():
    assert all(row["where"] for row in ROWS)


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if "byol_tf.study" in row["command"]],
    ids=lambda row: row["what"][:40],
)
def test_a_studys_row_has_the_command_that_its_table_was_made_with(row):
    """But for `--only`, which leaves rows out that README doesn't show."""
    (folder,) = {(ROOT / source["file"]).parent for source in row["values"].values()}
    assert row["command"].strip("`") in (folder / "table.md").read_text(encoding="utf-8")


def test_readmes_table_is_fresh():
    (found,) = TABLE.findall(README.read_text(encoding="utf-8"))
    assert found == measured(), "stale: python -m tests.docs.test_figures writes it anew"


def test_the_closing_table_is_the_demos():
    """The block at the top of README, as a run prints it."""
    demo = {name: value["value"] for name, value in ROWS[0]["values"].items()}
    (block,) = [block.text for block in blocks(README) if "untrained" in block.text]
    rows = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in block.splitlines()[1:])
    rows = {name: figures.split() for name, figures in rows.items()}
    assert rows == {
        "linear probe": [f"{demo['untrained']}%", f"{demo['byol']}%"],
        "nearest neighbours": [f"{demo['untrained_knn']}%", f"{demo['byol_knn']}%"],
        "supervised on the same labels": [f"{demo['scratch']}%"],
    }


if __name__ == "__main__":
    README.write_text(
        TABLE.sub(lambda _: measured(), README.read_text(encoding="utf-8")), encoding="utf-8"
    )
