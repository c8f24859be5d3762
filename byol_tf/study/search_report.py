"""Report of a search: its trials as a table in three formats, a figure, and the best config."""

import json
from collections.abc import Sequence
from pathlib import Path

from byol_tf.config.loading import resolved_json
from byol_tf.errors import ConfigError
from byol_tf.logs import counted
from byol_tf.runs.accuracy import Accuracy, difference
from byol_tf.runs.best_epoch import METRICS
from byol_tf.runs.files import markdown_table, write_atomically, write_csv
from byol_tf.study.report import latex_table
from byol_tf.study.schema import Study
from byol_tf.study.search import SearchPlan, TrialResult


def search_text(plan: SearchPlan, results: Sequence[TrialResult]) -> str:
    """Returns the table of the trials as Markdown, and what it can tell.

    Args:
        plan: of the search.
        results: of its trials, best first.
    """
    metric = plan.config.monitor.metric
    sentences = [f"Value: {METRICS[metric]}."]
    if plan.by_accuracy:
        sentences = [f"Value: {METRICS[metric]} on held-out training images, 95% interval."]
    complete = [each for each in results if each.state == "complete"]
    if len(complete) > 1 and plan.by_accuracy and complete[0].images is not None:
        best, *others = (Accuracy(each.value or 0.0, each.images) for each in complete)
        close = sum(difference(other, best).sign == 0 for other in others)
        sentences.append(
            f"Of {counted(len(others), 'other complete trial')} {close} can't be told from the "
            f"best with {counted(complete[0].images, 'image')}. The best of many is a little too "
            "high by chance."
        )
    failures = [f"* failed: trial {each.number}: {each.error}" for each in results if each.error]
    return "\n".join([markdown_table(_cells(plan, results)), "", " ".join(sentences), *failures])


def write_search_report(
    out: Path, study: Study, plan: SearchPlan, results: Sequence[TrialResult], command: str
) -> None:
    """Writes the table as `table.md`, `.csv` and `.tex`, and `best.json`, into a folder.

    `best.json` is the config of the best trial; its probe is tested on the test images again,
    unless early stopping or `run.export` needs it.

    Args:
        out: the folder.
        study: the study.
        plan: of the search.
        results: of its trials, best first.
        command: that made them.

    Raises:
        OSError: if a file can't be written.
    """
    cells = _cells(plan, results)
    page = [f"# {study.title}: search", "", "```sh", command, "```", "", search_text(plan, results)]
    write_atomically(out / "table.md", "\n".join(page) + "\n")
    write_atomically(out / "table.tex", latex_table(cells))
    rows = [
        [
            each.number,
            *(json.dumps(each.settings.get(key)) for key in plan.search.space),
            each.epochs,
            "" if each.value is None else f"{each.value:.6g}",
            each.state,
            each.run,
        ]
        for each in results
    ]
    write_csv(out / "table.csv", cells[0], rows)
    if results and results[0].state == "complete":
        try:
            best = plan.trial(results[0].settings, "test")
        except ConfigError:  # it compares epochs, which test labels must not decide
            best = plan.trial(results[0].settings)
        write_atomically(out / "best.json", resolved_json(best.model_copy(update={"about": None})))


def _cells(plan: SearchPlan, results: Sequence[TrialResult]) -> list[list[str]]:
    """Returns the texts of the table, its headings first."""
    table = [["trial", *plan.search.space, "epochs", "value", "state", "run"]]
    for each in results:
        value = "" if each.value is None else f"{each.value:.1f}"
        if each.value is not None and plan.by_accuracy:
            value = str(Accuracy(each.value, each.images))
        settings = [json.dumps(each.settings.get(key)) for key in plan.search.space]
        table.append([str(each.number), *settings, str(each.epochs), value, each.state, each.run])
    return table
