"""What a study found: `results.csv`, a Markdown table with the paper's figure beside ours, and two
figures."""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path

from byol_tf.runs.files import write_atomically, write_csv
from byol_tf.study.results import CellResult, by_cell, by_run
from byol_tf.study.runner import Outcome
from byol_tf.study.schema import Cell, Study

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


_NAMED = 8
"""Pairs in another order than the paper's that are named; of more, the rest is counted."""


def write_report(
    out: Path, study: Study, scale: str, outcomes: Sequence[Outcome], command: str
) -> str:
    """Writes `results.csv` and `table.md` into a folder; returns the table and what follows from
    it, as text."""
    out.mkdir(parents=True, exist_ok=True)
    found = by_cell(outcomes)
    write_csv(out / "results.csv", *_results_table(outcomes))
    text = "\n".join(filter(None, (_table(study, found), order_sentence(found)))) + "\n"
    size = study.scales[scale]
    head = (
        f"# {study.title}\n\n{study.question}\n\nPaper: {study.source}. Scale: {scale}. "
        f"{size.budget}\n\n```sh\n{command}\n```\n\n"
    )
    failed = [
        f"* failed: {each.planned.cell.place}, seed {each.planned.seed}: {each.error}"
        for each in outcomes
        if each.error
    ]
    body = (
        text
        + "\n".join(
            ["", "What became of the runs, mean over seeds:", "", _runs_table(found), *failed]
        )
        + "\n"
    )
    write_atomically(out / "table.md", head + body)
    return text


def draw_report(out: Path, study: Study, outcomes: Sequence[Outcome]) -> None:
    """Draws `bars.png` and `curves.png`, which takes seconds, into the folder of a report, once
    there is a figure."""
    found = by_cell(outcomes)
    if any(each.values for each in found):
        from byol_tf.runs.plots import setting_curves_figure
        from byol_tf.study.figures import bars_figure

        bars_figure(out / "bars.png", study.title, found)
        histories = {
            label: [each.history for each in outcomes] for label, outcomes in by_run(found).items()
        }
        setting_curves_figure(out / "curves.png", study.title, histories)


def order_sentence(found: Sequence[CellResult]) -> str:
    """Whether what the paper ranks higher came out higher, pair by pair within each column and each
    row of the table."""
    ranked = [each for each in found if each.cell.paper is not None and each.mean is not None]
    pairs = [
        (a, b)
        for a, b in itertools.combinations(ranked, 2)
        if (a.cell.column == b.cell.column or a.cell.row == b.cell.row)
        and a.cell.paper != b.cell.paper
    ]
    if not pairs:
        return ""  # no two figures of the paper to compare the order of
    agree = [(a.mean - b.mean) * (a.cell.paper - b.cell.paper) > 0 for a, b in pairs]
    sentence = (
        f"The paper's order holds in {sum(agree)} of {len(pairs)} pairs that share a row or "
        "a column"
    )
    clear = [
        same
        for same, (a, b) in zip(agree, pairs, strict=True)
        if a.spread is not None
        and b.spread is not None
        and abs(a.mean - b.mean) > a.spread + b.spread
    ]
    if clear:
        sentence += (
            f"; of the {len(clear)} that are further apart here than both spreads "
            f"together, in {sum(clear)}"
        )
    wrong = [_pair(a.cell, b.cell) for same, (a, b) in zip(agree, pairs, strict=True) if not same]
    if len(wrong) > _NAMED:
        wrong = [*wrong[: _NAMED - 1], f"{len(wrong) - _NAMED + 1} others"]
    return sentence + (f". Not in: {'; '.join(wrong)}." if wrong else ".")


def _pair(a: Cell, b: Cell) -> str:
    """Names two cells of a row or a column."""
    if a.row == b.row:
        return f"{a.row}: {a.column} / {b.column}"
    return f"{a.column}: {a.row} / {b.row}" if a.column else f"{a.row} / {b.row}"


def _results_table(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[object]]]:
    """Returns (columns, rows) of `results.csv`."""
    names = [name for name, *_ in _MEASURES]
    before, after = (
        ("row", "column", "seed", "measure", "command", "top1", "paper"),
        ("epochs", "steps", "seconds"),
    )
    columns = [*before, *names, *after, "run", "weights_digest", "error"]
    rows = []
    for each in outcomes:
        planned, result = each.planned, each.result
        rows.append(
            [
                planned.cell.row,
                planned.cell.column,
                planned.seed,
                planned.cell.measure,
                " ".join(planned.words),
            ]
            + [
                "" if each.value is None else f"{each.value:.4f}",
                "" if planned.cell.paper is None else planned.cell.paper,
            ]
            + [f"{result[name]:.6g}" if result.get(name) is not None else "" for name in names]
            + [result.get(name, "") for name in after]
            + [planned.run_name, result.get("weights_digest", ""), each.error]
        )
    return columns, rows


def _table(study: Study, found: Sequence[CellResult]) -> str:
    """Rows and columns as in the paper; ours beside its figure, where a column has any."""
    columns = list(dict.fromkeys(each.cell.column for each in found))
    printed = {each.cell.column for each in found if each.cell.paper is not None}
    cells = {(each.cell.row, each.cell.column): each for each in found}
    heads = []
    for column in columns:
        heads += [
            f"{column + ': ' if column else ''}{who}"
            for who in (("paper", "here") if column in printed else ("here",))
        ]
    says = any(each.cell.paper_says for each in found)
    lines = [
        _line("", *heads, *(["the paper says"] if says else [])),
        "|---" * (1 + len(heads) + says) + "|",
    ]
    for row in dict.fromkeys(each.cell.row for each in found):
        texts = []
        for column in columns:
            each = cells.get((row, column))
            if column in printed:
                texts.append(
                    "" if each is None or each.cell.paper is None else f"{each.cell.paper:.1f}"
                )
            texts.append("" if each is None else each.text)
        said = dict.fromkeys(
            each.cell.paper_says for each in found if each.cell.row == row and each.cell.paper_says
        )
        lines.append(_line(row, *texts, *(["; ".join(said)] if says else [])))
    return "\n".join([*lines, "", _note(study, found)]) + "\n"


def _note(study: Study, found: Sequence[CellResult]) -> str:
    """What the figures are, and over how many seeds."""
    counts = sorted({len(each.values) for each in found})
    seeds = " to ".join(dict.fromkeys((str(counts[0]), str(counts[-1]))))
    words = {each.cell.measure: " ".join(each.outcomes[0].planned.words) for each in found}
    what = "; ".join(f"{name}: {words[name]}" for name in study.measures if name in words)
    mean = (
        f"mean{' and standard deviation' if counts[-1] > 1 else ''} over {seeds} "
        f"seed{'s' if counts[-1] != 1 else ''}"
    )
    return f"Top-1 in %, {mean} ({what})."


def _line(*texts: str) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


def _runs_table(found: Sequence[CellResult]) -> str:
    lines = [
        _line("run", *(head for _, head, *_ in _MEASURES)),
        "|---" * (1 + len(_MEASURES)) + "|",
    ]
    for label, outcomes in by_run(found).items():
        texts = []
        for name, _, factor, form in _MEASURES:
            values = [
                factor * each.result[name] for each in outcomes if each.result.get(name) is not None
            ]
            texts.append(format(statistics.mean(values), form) if values else "")
        if any(texts):
            lines.append(_line(label, *texts))
    return "\n".join(lines) + "\n"
