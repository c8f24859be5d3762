"""README's figures, and those of the pages that it leads to, are those of
`docs/results/figures.json`, and each of these is what the file that it names holds.

`python -m tests.docs.test_figures` writes README's table of what was measured anew.
"""

import csv
import json
import re
import statistics

import pytest

from byol_tf.runs.accuracy import Accuracy
from tests.docs.pages import ROOT

README = ROOT / "README.md"
ROWS = json.loads((ROOT / "docs" / "results" / "figures.json").read_text(encoding="utf-8"))["rows"]
TABLE = re.compile(r"(?<=<!-- measured -->\n).*(?=<!-- /measured -->)", re.DOTALL)


def shown(row: dict) -> dict[str, str]:
    """The figures of a row as they are written."""
    return {name: value["value"] for name, value in row["values"].items()}


def with_intervals(row: dict) -> dict[str, str]:
    """The figures of a row of README's table: those of a single seed with the 95% interval from
    the images that they were measured on."""
    if not row["count"].endswith(", 1 seed"):
        return shown(row)
    images = int(row["count"].split()[0].replace(",", ""))
    texts = {}
    for name, value in shown(row).items():
        low, high = Accuracy(recorded(row["values"][name]) / 100, images).interval
        texts[name] = f"{value} ({100 * low:.1f} to {100 * high:.1f})"
    return texts


def measured() -> str:
    """The table of README."""
    lines = [
        "| what | evaluated on | baseline | BYOL | command |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        if "baseline" in row:
            figures = with_intervals(row)
            baseline, figure = (row[key].format(**figures) for key in ("baseline", "figure"))
            lines.append(
                f"| {row['what']} | {row['count']} | {baseline} | **{figure}** | {row['command']} |"
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
        value = source["value"]
        if "says" in source:  # printed by a run of which nothing else was kept
            assert source["says"] in (ROOT / source["file"]).read_text(encoding="utf-8"), name
            assert re.search(rf"(?<![\d.]){re.escape(value)}(?![\d.]*\d)", source["says"]), name
        else:
            half = 0.5 * 10.0 ** -len(value.partition(".")[2])
            assert abs(float(value) - recorded(source)) <= half + 1e-9, (
                name,
                value,
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


@pytest.mark.parametrize(
    "row", [row for row in ROWS if "page" in row], ids=lambda row: row["what"][:40]
)
def test_other_pages_have_their_figures(row):
    """Some round what a file holds to whole points or give it in a sentence; none drops it."""
    page = (ROOT / row["page"]).read_text(encoding="utf-8")
    for figure in shown(row).values():
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.]*\d)", page), figure


def test_readmes_table_of_the_demo_has_its_figures():
    """The table at the top of README, in percent."""
    demo = shown(ROWS[0])
    page = README.read_text(encoding="utf-8")
    rows = re.findall(r"^\| .*%.*$", page.partition("## Your photos")[0], re.MULTILINE)
    assert [re.findall(r"([\d.]+)%", row) for row in rows] == [
        [demo["untrained"]],
        [demo["byol"]],
        [demo["scratch"]],
    ]


if __name__ == "__main__":
    README.write_text(
        TABLE.sub(lambda _: measured(), README.read_text(encoding="utf-8")), encoding="utf-8"
    )
