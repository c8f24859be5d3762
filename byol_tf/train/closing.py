"""The text that closes a run: accuracies before and after training, and what to do next."""

import os
import shlex
from typing import Any

from byol_tf.command_line import program
from byol_tf.logs import counted
from byol_tf.runs.folder import RunFolder


def closing_text(result: dict[str, Any], folder: RunFolder) -> str:
    """Returns the table, and the next commands.

    Args:
        result: the content of `result.json`.
        folder: of the run.
    """
    return "\n".join(["", *_table(result), "", *_next_steps(folder), ""])


def _table(result: dict[str, Any]) -> list[str]:
    start = "untrained" if result.get("starting_weights") is None else "at start"
    lines = [
        f"  {'accuracy on frozen features':<30} {start:>10} {result.get('system', 'trained'):>8}"
    ]
    for name, key in (("linear probe", "probe_accuracy"), ("nearest neighbours", "knn_accuracy")):
        if result.get(key) is None or result.get(f"untrained_{key}") is None:
            lines.append(f"  {name:<30} {'no labels':>10}")
        else:
            lines.append(f"  {name:<30} {result[f'untrained_{key}']:>10.1%} {result[key]:>8.1%}")
    if (supervised := result.get("supervised_accuracy")) is not None:
        lines.append(f"  {'supervised on the same labels':<30} {'':>10} {supervised:>8.1%}")
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
