"""The text that closes a run: accuracies before and after training, and what to do next."""

import os
import shlex
import textwrap
from typing import Any

from byol_tf.command_line import program
from byol_tf.logs import counted
from byol_tf.runs.accuracy import Accuracy
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.summary import ACCURACIES, PROBE_IMAGE


def closing_text(result: dict[str, Any], folder: RunFolder) -> str:
    """Returns the table, and the next commands.

    Args:
        result: the content of `result.json`.
        folder: of the run.
    """
    return "\n".join(["", *_table(result), "", *_next_steps(folder), ""])


def _table(result: dict[str, Any]) -> list[str]:
    start = "untrained" if result.get("starting_weights") is None else "at start"
    count = result.get("test_images")

    def line(name: str, before: float | None, after: float | None) -> str:
        cells = ["" if value is None else str(Accuracy(value, count)) for value in (before, after)]
        return f"  {name:<30} {cells[0]:>22} {cells[1]:>22}"

    lines = [
        f"  {'accuracy on frozen features':<30} {start:>22} {result.get('system', 'trained'):>22}"
    ]
    for key, name in ACCURACIES:
        if result.get(key) is None:
            lines.append(f"  {name:<30} {'no labels':>22}")
        else:
            lines.append(line(name, result.get(f"untrained_{key}"), result[key]))
    if (supervised := result.get("supervised_accuracy")) is not None:
        lines.append(line("supervised on the same labels", None, supervised))
    if (chance := result.get("chance")) is not None:
        lines.append(f"  {'always the most frequent class':<30} {'':>22} {chance:>22.1%}")
    if count is not None:
        image = PROBE_IMAGE.get(result.get("probe_split", ""), PROBE_IMAGE["test"])
        lines.append(f"  in brackets: 95% interval, from {counted(count, image)}")
    if isinstance(sentences := result.get("verdict"), list):
        text = " ".join(map(str, sentences))
        lines += ["", textwrap.fill(text, 78, initial_indent="  ", subsequent_indent="  ")]
    std = result.get("projection_std")
    spread = "" if std is None else f"{std:.2f} (1: scattered, 0: collapsed)"
    return [
        *lines,
        "",
        f"  {counted(result['epochs'], 'epoch')}, {counted(result['steps'], 'step')}, "
        f"{result['images_per_second']:,.0f} images/s",
        *([f"  spread of projections {spread}"] if spread else []),
    ]


def _next_steps(folder: RunFolder) -> list[str]:
    run = shlex.quote(os.fspath(folder.root))
    report = f"{run}/report.html" if folder.report.exists() else f"{program('report')} --run {run}"
    return [
        f"  look:  {report}",
        f"         tensorboard --logdir {run}/logs",
        f"  use:   {program('embed')} --encoder {run} --images DIR",
        f"         {program('export')} --run {run} --format all",
        f"         {run}/export/USAGE.md",
    ]
