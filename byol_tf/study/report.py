"""Report of a study: its table in three formats, `results.csv`, and two figures."""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path

from byol_tf.logs import counted
from byol_tf.runs.files import markdown_table, write_atomically, write_csv
from byol_tf.study.results import CellResult, accuracy_name, group_by_cell, group_by_run
from byol_tf.study.runner import Outcome
from byol_tf.study.schema import FIGURES, Cell, ScaleName, Study

_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}
"""What stands for the characters that LaTeX would read as something else."""
_MEASURES = (
    ("untrained_probe_accuracy", "untrained probe", 100.0, ".1f"),
    ("probe_accuracy", "probe", 100.0, ".1f"),
    ("untrained_knn_accuracy", "untrained kNN", 100.0, ".1f"),
    ("knn_accuracy", "kNN", 100.0, ".1f"),
    ("projection_std", "spread", 1.0, ".2f"),
    ("projection_cosine", "cosine", 1.0, ".2f"),
    ("effective_rank", "rank", 1.0, ".1f"),
    ("loss", "loss", 1.0, ".3f"),
)
"""Of a run's `result.json`: key, heading, factor, format."""
_LOCATIONS = ("data.root=", "data.archive=", "data.cache=", "devices.", "run.")
"""Overrides that change neither what is learned from nor for how long."""
_NAMED_PAIRS = 8
"""Most pairs in another order than the paper's that are named; the rest is counted."""


def report_table(study: Study, outcomes: Sequence[Outcome]) -> str:
    """Returns the table of a study, and whether the paper's order holds, as text.

    Args:
        study: the study.
        outcomes: every cell with every seed.
    """
    results = group_by_cell(outcomes)
    return "\n".join(filter(None, (_table(study, results), order_sentence(results)))) + "\n"


def write_report(
    out: Path,
    study: Study,
    scale: ScaleName,
    outcomes: Sequence[Outcome],
    command: str,
    overrides: Sequence[str] = (),
) -> None:
    """Writes `results.csv`, and the table as `table.md`, `.csv` and `.tex`, into a folder.

    Args:
        out: the folder, which is made if needed.
        study: the study.
        scale: the scale that it is run at.
        outcomes: every cell with every seed.
        command: that made them.
        overrides: `KEY=VALUE` of the command that all runs have.

    Raises:
        OSError: if a file can't be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = group_by_cell(outcomes)
    write_csv(out / "results.csv", *_csv_table(outcomes))
    write_csv(out / "table.csv", *_cell_table(results))
    write_atomically(out / "table.tex", latex_table(_cells(results)))
    failures = [
        f"* failed: {outcome.planned.cell.place}, seed {outcome.planned.seed}: {outcome.error}"
        for outcome in outcomes
        if outcome.error
    ]
    page = [
        f"# {study.title}",
        "",
        study.question,
        "",
        f"Paper: {study.source}. Scale: {scale}. "
        + _what_was_run(study, scale, outcomes, overrides),
        "",
        "```sh",
        command,
        "```",
        "",
        report_table(study, outcomes),
        "What became of the runs, mean over seeds:",
        "",
        _runs_table(results),
        *failures,
    ]
    write_atomically(out / "table.md", "\n".join(page) + "\n")


def _what_was_run(
    study: Study, scale: ScaleName, outcomes: Sequence[Outcome], overrides: Sequence[str]
) -> str:
    """Says how long the runs are, from their configs; the study's budget if nothing changes it."""
    runs = {
        outcome.planned.run_name: outcome
        for outcome in outcomes
        if outcome.planned.words[0] != "supervised"
    }
    epochs = sorted({outcome.planned.config.training.epochs for outcome in runs.values()})
    images = sorted(
        {outcome.result["pretrain_images"] for outcome in runs.values()}
        if all("pretrain_images" in outcome.result for outcome in runs.values())
        else set()
    )
    text = ""
    if epochs:
        text = f"Run here: {counted(len(runs), 'run')} of {_span(epochs)} epochs"
        text += f" of {_span(images)} images. " if images else ". "
    changed = [each for each in overrides if not each.startswith(_LOCATIONS)]
    if changed:
        return f"{text}Changed by --set: {', '.join(changed)}."
    return f"{text}{study.scales[scale].budget}"


def _span(values: Sequence[int]) -> str:
    ends = dict.fromkeys((f"{values[0]:,}", f"{values[-1]:,}"))
    return " to ".join(ends)


def draw_report(out: Path, study: Study, outcomes: Sequence[Outcome]) -> None:
    """Draws `bars.png` and `curves.png` into the folder of a report, once a cell is done.

    Where an evaluation trains the network, `tuning.png` has its curves.
    """
    results = group_by_cell(outcomes)
    if any(result.values for result in results):
        from byol_tf.runs.plots import TUNING_PANELS, setting_curves_figure
        from byol_tf.study.figures import bars_figure

        bars_figure(out / "bars.png", study.title, results)
        histories = {
            label: [outcome.history for outcome in run]
            for label, run in group_by_run(results).items()
        }
        setting_curves_figure(out / "curves.png", study.title, histories)
        tunings = {
            f"{result.cell.row}, {result.cell.column}".removesuffix(", "): [
                seed for outcome in result.outcomes for seed in outcome.tuning
            ]
            for result in results
        }
        if any(tunings.values()):
            setting_curves_figure(out / "tuning.png", study.title, tunings, TUNING_PANELS)


def order_sentence(results: Sequence[CellResult]) -> str:
    """Says in how many pairs of cells the one that the paper ranks higher came out higher.

    Args:
        results: the cells; pairs share a column or a row, and differ in the paper's figures.

    Returns:
        A sentence; empty if there is no such pair.
    """
    ranked = [
        (result.cell, result.cell.paper, result.mean, result.std)
        for result in results
        if result.cell.paper is not None and result.mean is not None
    ]
    agreeing = separated = agreeing_separated = 0
    reversed_pairs = []
    pairs = [
        (a, b)
        for a, b in itertools.combinations(ranked, 2)
        if (a[0].column == b[0].column or a[0].row == b[0].row) and a[1] != b[1]
    ]
    for (cell_a, paper_a, mean_a, std_a), (cell_b, paper_b, mean_b, std_b) in pairs:
        agrees = (mean_a - mean_b) * (paper_a - paper_b) > 0
        agreeing += agrees
        if not agrees:
            reversed_pairs.append(_pair(cell_a, cell_b))
        if std_a is not None and std_b is not None and abs(mean_a - mean_b) > std_a + std_b:
            separated += 1
            agreeing_separated += agrees
    if not pairs:
        return ""
    sentence = (
        f"The paper's order holds in {agreeing} of {len(pairs)} pairs that share a row or a column"
    )
    if separated:
        sentence += (
            f"; of the {separated} that are further apart here than both spreads together, in "
            f"{agreeing_separated}"
        )
    if len(reversed_pairs) > _NAMED_PAIRS:
        rest = len(reversed_pairs) - _NAMED_PAIRS + 1
        reversed_pairs = [*reversed_pairs[: _NAMED_PAIRS - 1], f"{rest} others"]
    return sentence + (f". Not in: {'; '.join(reversed_pairs)}." if reversed_pairs else ".")


def _pair(a: Cell, b: Cell) -> str:
    """Names two cells of a row or a column."""
    if a.row == b.row:
        return f"{a.row}: {a.column} / {b.column}"
    return f"{a.column}: {a.row} / {b.row}" if a.column else f"{a.row} / {b.row}"


def _csv_table(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[object]]]:
    """Returns the columns of `results.csv`, and a row for each outcome."""
    measures = [name for name, *_ in _MEASURES]
    sizes = ["epochs", "steps", "seconds"]
    columns = ["row", "column", "seed", "measure", "command", "figure", "accuracy", "paper"]
    columns += [*measures, *sizes, "run", "weights_digest", "error"]
    rows = []
    for outcome in outcomes:
        planned, cell, result = outcome.planned, outcome.planned.cell, outcome.result
        rows.append(
            [
                cell.row,
                cell.column,
                planned.seed,
                cell.measure,
                " ".join(planned.words),
                planned.figure,
                "" if outcome.value is None else f"{outcome.value:.4f}",
                "" if cell.paper is None else cell.paper,
                *("" if result.get(name) is None else f"{result[name]:.6g}" for name in measures),
                *(result.get(name, "") for name in sizes),
                planned.run_name,
                result.get("weights_digest", ""),
                outcome.error,
            ]
        )
    return columns, rows


def _table(study: Study, results: Sequence[CellResult]) -> str:
    """Formats the rows and columns of the paper, with its figures beside ours, as Markdown."""
    return f"{markdown_table(_cells(results))}\n\n{_caption(study, results)}\n"


def latex_table(cells: Sequence[Sequence[str]]) -> str:
    """Formats texts as a LaTeX `tabular`, which needs the package booktabs.

    Args:
        cells: rows of texts, the headings first.
    """
    head, *rows = (" & ".join(map(_latex, row)) + r" \\" for row in cells)
    columns = "l" + "r" * (len(cells[0]) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _cells(results: Sequence[CellResult]) -> list[list[str]]:
    """Returns the texts of the table, its headings first."""
    columns = list(dict.fromkeys(result.cell.column for result in results))
    with_paper = {result.cell.column for result in results if result.cell.paper is not None}
    by_position = {(result.cell.row, result.cell.column): result for result in results}
    headings = []
    for column in columns:
        prefix = f"{column}: " if column else ""
        headings += [f"{prefix}paper"] * (column in with_paper) + [f"{prefix}here"]
    has_remarks = any(result.cell.paper_says for result in results)
    table = [["", *headings, *(["the paper says"] if has_remarks else [])]]
    for row in dict.fromkeys(result.cell.row for result in results):
        texts, remarks = [], []
        for column in columns:
            result = by_position.get((row, column))
            paper = None if result is None else result.cell.paper
            if column in with_paper:
                texts.append("" if paper is None else f"{paper:.1f}")
            texts.append("" if result is None else result.text)
            if result is not None and result.cell.paper_says:
                remarks.append(result.cell.paper_says)
        table.append([row, *texts, *(["; ".join(dict.fromkeys(remarks))] if has_remarks else [])])
    return table


def _cell_table(results: Sequence[CellResult]) -> tuple[list[str], list[list[object]]]:
    """Returns the columns of `table.csv`, and a row for each cell; figures in %."""
    rows: list[list[object]] = []
    for result in results:
        numbers = (result.mean, result.std, *(result.interval or (None, None)), result.cell.paper)
        rows.append(
            [
                result.cell.row,
                result.cell.column,
                result.cell.measure,
                len(result.values),
                *("" if number is None else f"{number:.2f}" for number in numbers),
            ]
        )
    columns = ["row", "column", "measure", "seeds", "mean", "std", "low", "high", "paper"]
    return columns, rows


def _caption(study: Study, results: Sequence[CellResult]) -> str:
    """Says what the figures are, and over how many seeds."""
    counts = sorted({len(result.values) for result in results})
    seeds = " to ".join(dict.fromkeys((str(counts[0]), str(counts[-1]))))
    words = {result.cell.measure: " ".join(result.outcomes[0].planned.words) for result in results}
    for name, measure in study.measures.items():
        if name in words and measure.figure != "top1":
            words[name] += f", {FIGURES[measure.figure]}"
    measures = "; ".join(f"{name}: {words[name]}" for name in study.measures if name in words)
    mean = "mean and standard deviation" if counts[-1] > 1 else "mean"
    plural = "" if counts[-1] == 1 else "s"
    if not counts[-1]:
        return f"Nothing is measured yet ({measures})."
    brackets = ""
    if any("[" in result.text for result in results):
        brackets = " In brackets: 95% interval, from the test images."
    name = accuracy_name(results).capitalize()
    return f"{name} in %, {mean} over {seeds} seed{plural} ({measures}).{brackets}"


def _runs_table(results: Sequence[CellResult]) -> str:
    """Formats the measures of each pre-trained run, the mean over its seeds."""
    cells = [["run", *(heading for _, heading, *_ in _MEASURES)]]
    for label, outcomes in group_by_run(results).items():
        texts = []
        for name, _, factor, spec in _MEASURES:
            values = [outcome.result.get(name) for outcome in outcomes]
            measured = [factor * value for value in values if value is not None]
            texts.append(format(statistics.mean(measured), spec) if measured else "")
        if any(texts):
            cells.append([label, *texts])
    return markdown_table(cells)
