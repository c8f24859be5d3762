"""`python -m byol_tf.compare`: runs side by side, from their files alone.

The table shows which settings differ between the runs, and the accuracy, collapse measures and
loss of each.
"""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("compare")


import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from byol_tf.command_line import (
    add_path,
    check_writable,
    command_parser,
    ends_with_exit_code,
)
from byol_tf.config.diff import flat
from byol_tf.errors import USAGE_ERROR, OutputError, RunFolderError, escape
from byol_tf.runs.accuracy import Accuracy, difference
from byol_tf.runs.files import csv_text, markdown_table, write_atomically
from byol_tf.runs.folder import RunFolder, read_history

_MEASURES = (
    ("probe_accuracy", "probe", 100.0, ".1f"),
    ("knn_accuracy", "kNN", 100.0, ".1f"),
    ("projection_std", "spread", 1.0, ".3f"),
    ("projection_cosine", "cosine", 1.0, ".3f"),
    ("effective_rank", "rank", 1.0, ".1f"),
    ("loss", "loss", 1.0, ".3f"),
)
"""Column of a history, its heading, factor and format. Those in % have an interval."""
_NOT_SETTINGS = ("seed", "name")
"""Keys that don't tell settings apart: a seed has a column of its own, a name needs none."""
_LEGEND_KEYS = 3
"""Most settings that a legend of the figure names."""
_PRINTED_KEYS = 6
"""Most settings that have a column of the table on screen."""
_DEFAULT_OUT = "comparison.png"


@dataclass(frozen=True)
class ComparedRun:
    """A run that is compared.

    Attributes:
        name: the folder's name, or the one that the user gave.
        is_named: whether the user gave the name.
        settings: dotted key -> value as JSON, of every key that matters for the result; None for a
            history without a config.
        rows: the rows of its history, the untrained network's first.
        supervised: accuracy of the same network trained from scratch, if it was measured.
        test_images: number of images that accuracies are measured on, if the run is finished.
        exported_epoch: of the exported encoder; None while the run isn't finished.
    """

    name: str
    is_named: bool
    settings: dict[str, str] | None
    rows: list[dict[str, float]]
    supervised: float | None
    test_images: int | None
    exported_epoch: int | None = None

    @property
    def seed(self) -> str:
        """The seed as JSON; empty without a config."""
        return (self.settings or {}).get("seed", "")

    def last(self, measure: str) -> float | None:
        """Returns the last value of a column up to the exported epoch, or None without any."""
        last = self.rows[-1]["epoch"] if self.exported_epoch is None else self.exported_epoch
        rows = [row for row in self.rows[1:] if row["epoch"] <= last]
        return next((row[measure] for row in reversed(rows) if measure in row), None)


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Prints a line for each setting, and writes the table and the figure.

    Returns:
        The exit code: 0 (folders without a history are skipped and named); 2 with a message and
        nothing written if no run remains, a path is neither a folder nor a history, or the output
        can't be written; 128 + n after signal n.
    """
    options = _parser().parse_args(arguments)
    figure = _figure_path(options.out)
    check_writable(figure.parent, "--out")
    runs: list[ComparedRun] = []
    skipped: list[str] = []
    wrong: list[str] = []
    for text in options.runs:
        name, path = _split_name(text)
        try:
            runs.append(_read_run(name, path))
        except (OSError, ValueError, RunFolderError) as error:
            # `runs/*` also matches the folder of studies, runs without a row yet, and damaged ones;
            # a path that doesn't exist is a typing error.
            (skipped if os.path.isdir(path) else wrong).append(
                f"{text}: expected a run folder with a history.csv; {error}"
            )
    if wrong or not runs:
        print("\n".join([*wrong, *skipped]), file=sys.stderr)
        return USAGE_ERROR
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    keys = differing_keys(runs)
    groups = group_by_setting(runs, keys)
    table = comparison_table(groups, keys)
    files = {figure.with_suffix(".csv"): _csv(runs, keys), figure.with_suffix(".md"): table}
    if len(keys) > _PRINTED_KEYS:
        table = (
            f"{comparison_table(groups, ())}\n{len(keys)} settings differ; "
            f"{figure.with_suffix('.md')} has their columns\n"
        )
    print(table)
    figure.parent.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        write_atomically(path, content)
    _draw(figure, groups, keys)
    print(", ".join(map(str, (figure, *files))))
    return 0


def _figure_path(out: str) -> Path:
    """Returns the path of the figure that `--out` names: a PNG, its stem, or a folder for it.

    Raises:
        OutputError: for the suffix of another format.
    """
    path = Path(out)
    if path.is_dir() or out.endswith(os.sep):
        return path / _DEFAULT_OUT
    if path.suffix.lower() in ("", ".png", ".csv", ".md"):
        return path.with_suffix(".png")
    raise OutputError(
        f"--out {out}: expected a PNG, next to which .csv and .md are written; received "
        f"{path.suffix}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "compare",
        description="Compares runs: which settings differ, accuracy, collapse measures, loss. Runs "
        "that differ by their seed are one line.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folders, or history.csv files; NAME=RUN gives one another name",
    )
    add_path(
        parser,
        "--out",
        f"the figure, or a folder for it; .csv and .md are written next to it (default: "
        f"{_DEFAULT_OUT})",
        metavar="PNG",
        default=_DEFAULT_OUT,
    )
    return parser


def _split_name(text: str) -> tuple[str, Path]:
    """Splits `NAME=RUN` into (name, path); the name of a mere path is empty."""
    whole = Path(os.path.expanduser(text))
    if os.path.exists(whole) or "=" not in text:  # a path may contain "="
        return "", whole
    name, _, path = text.rpartition("=")
    return name, Path(os.path.expanduser(path))


def _read_run(name: str, path: Path) -> ComparedRun:
    """Reads a run from its files.

    Raises:
        OSError, ValueError, RunFolderError: if the files aren't those of a run.
    """
    folder, is_folder = RunFolder(path), os.path.isdir(path)
    rows = read_history(folder.history if is_folder else path)
    if not rows:
        raise ValueError("its history has no epochs")
    saved = folder.saved_config() if is_folder else None
    result = (folder.finished() or {}) if is_folder else {}
    return ComparedRun(
        name=escape(name or (path.resolve().name if is_folder else path.stem), 200),
        is_named=bool(name),
        settings=None if saved is None else flat(saved),
        rows=rows,
        supervised=result.get("supervised_accuracy"),
        test_images=result.get("test_images"),
        exported_epoch=result.get("exported_epoch"),
    )


def differing_keys(runs: Sequence[ComparedRun]) -> list[str]:
    """Returns the settings that differ between runs with a config, in the config's order."""
    configs = [run.settings for run in runs if run.settings is not None]
    keys = dict.fromkeys(key for settings in configs for key in settings)
    return [
        key
        for key in keys
        if key not in _NOT_SETTINGS and len({settings.get(key) for settings in configs}) > 1
    ]


def group_by_setting(runs: Sequence[ComparedRun], keys: Sequence[str]) -> list[list[ComparedRun]]:
    """Groups runs that differ only by their seed; the best probe comes first.

    A run that the user has named, one without a config, and one whose setting and seed are there
    already have a group of their own.
    """
    groups: dict[tuple, list[ComparedRun]] = {}
    for number, run in enumerate(runs):
        if run.is_named or run.settings is None:
            setting: tuple = ("alone", number)
        else:
            setting = tuple(run.settings.get(key) for key in keys)
        if run.seed in [other.seed for other in groups.get(setting, ())]:
            setting = ("alone", number)
        groups.setdefault(setting, []).append(run)
    return sorted(groups.values(), key=_mean_probe, reverse=True)


def _mean_probe(group: Sequence[ComparedRun]) -> float:
    values = _last_values(group, "probe_accuracy")
    return statistics.mean(values) if values else float("-inf")


def _last_values(group: Sequence[ComparedRun], measure: str) -> list[float]:
    return [value for run in group if (value := run.last(measure)) is not None]


def comparison_table(groups: Sequence[Sequence[ComparedRun]], keys: Sequence[str]) -> str:
    """Formats a Markdown table with a line for each group and aligned columns.

    Args:
        groups: runs by setting; several have mean and standard deviation over their seeds.
        keys: settings with a column each.
    """
    with_supervised = any(run.supervised is not None for group in groups for run in group)
    headings = [heading for _, heading, *_ in _MEASURES]
    with_intervals = any(run.test_images for group in groups for run in group)
    images_heading = [_images_name(groups)] if with_intervals else []
    head = ["run", *keys, "seeds", "epochs", *images_heading, "untrained", *headings]
    lines = [[*head, *(["supervised"] if with_supervised else [])]]
    for group in groups:
        first = group[0]
        untrained = [run.rows[0].get("probe_accuracy") for run in group]
        supervised = [run.supervised for run in group]
        lines.append(
            [
                first.name if len(group) == 1 else f"{first.name} and {len(group) - 1} more",
                *(_setting_text(first, key) for key in keys),
                ", ".join(sorted((run.seed for run in group), key=lambda seed: (len(seed), seed))),
                ", ".join(sorted({f"{run.rows[-1]['epoch']:.0f}" for run in group}, key=int)),
                *([str(_test_images(group) or "")] if with_intervals else []),
                _mean_text(untrained, 100.0, ".1f", _test_images(group)),
                *(
                    _mean_text(
                        _last_values(group, measure),
                        factor,
                        spec,
                        _test_images(group) if factor == 100.0 else None,
                    )
                    for measure, _, factor, spec in _MEASURES
                ),
                *(
                    [_mean_text(supervised, 100.0, ".1f", _test_images(group))]
                    if with_supervised
                    else []
                ),
            ]
        )
    return f"{markdown_table(lines)}\n{_interval_note(groups)}"


def _images_name(groups: Sequence[Sequence[ComparedRun]]) -> str:
    splits = {(run.settings or {}).get("probe.split") for group in groups for run in group}
    return "held-out images" if splits == {'"held_out"'} else "test images"


def _test_images(group: Sequence[ComparedRun]) -> int | None:
    """Returns on how many test images the runs of a group were evaluated, if it is one number."""
    counts = {run.test_images for run in group}
    return counts.pop() if len(counts) == 1 else None


def _interval_note(groups: Sequence[Sequence[ComparedRun]]) -> str:
    """Explains the brackets, and names the settings that can't be told from the best.

    Empty without intervals.
    """
    measured = [
        (group[0].name, Accuracy(statistics.mean(values), _test_images(group)))
        for group in groups
        if (values := _last_values(group, "probe_accuracy"))
    ]
    if not measured or measured[0][1].interval is None:
        return ""
    (best, highest), *others = measured
    note = f"In brackets: 95% interval, from the {_images_name(groups)}.\n"
    close = [name for name, accuracy in others if difference(accuracy, highest).sign == 0]
    if close:
        note += f"The probe can't tell these from {best}: {', '.join(close)}.\n"
    return note


def _setting_text(run: ComparedRun, key: str) -> str:
    """Formats a setting as a person writes it."""
    return "" if run.settings is None else run.settings.get(key, "absent").strip('"')


def _mean_text(
    values: Sequence[float | None], factor: float, spec: str, count: int | None = None
) -> str:
    """Formats the mean of the values that aren't None, with the standard deviation of several.

    Of accuracies on `count` test images it is followed by its 95% interval.
    """
    measured = [factor * value for value in values if value is not None]
    if not measured:
        return ""
    deviation = f" ± {statistics.stdev(measured):{spec}}" if len(measured) > 1 else ""
    interval = Accuracy(statistics.mean(measured) / factor, count).interval
    brackets = "" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return f"{statistics.mean(measured):{spec}}{deviation}{brackets}"


def _csv(runs: Sequence[ComparedRun], keys: Sequence[str]) -> str:
    """Formats the runs as CSV, a line each, with accuracies as fractions."""
    measures = [measure for measure, *_ in _MEASURES]
    rows = []
    for run in runs:
        values = [run.rows[0].get("probe_accuracy"), *map(run.last, measures), run.supervised]
        rows.append(
            [
                run.name,
                *(_setting_text(run, key) for key in keys),
                run.seed,
                f"{run.rows[-1]['epoch']:.0f}",
                "" if run.test_images is None else run.test_images,
                *("" if value is None else f"{value:.6g}" for value in values),
            ]
        )
    columns = ["run", *keys, "seed", "epochs", "test_images", "untrained_probe_accuracy", *measures]
    return csv_text([*columns, "supervised_accuracy"], rows)


def _draw(path: Path, groups: Sequence[Sequence[ComparedRun]], keys: Sequence[str]) -> None:
    from byol_tf.runs.plots import setting_curves_figure

    labelled: dict[str, list] = {}
    for group in groups:
        first = group[0]
        label = first.name
        if not first.is_named and first.settings is not None and 0 < len(keys) <= _LEGEND_KEYS:
            label = ", ".join(f"{key}={_setting_text(first, key)}" for key in keys)
        if label in labelled:
            label = f"{label} ({first.name})"
        while label in labelled:
            label += "'"
        labelled[label] = [run.rows for run in group]
    setting_curves_figure(path, "", labelled)
