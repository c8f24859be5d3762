"""`python -m byol_tf.compare`: several runs side by side, from their files alone: what differs in
their configs, and what came of it."""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from byol_tf.config.diff import flat
from byol_tf.errors import RunFolderError
from byol_tf.runs.files import csv_text, write_atomically
from byol_tf.runs.folder import RunFolder, read_history

_MEASURES = (
    ("probe_accuracy", "probe", 100.0, ".1f"),
    ("knn_accuracy", "kNN", 100.0, ".1f"),
    ("projection_std", "spread", 1.0, ".3f"),
    ("projection_cosine", "cosine", 1.0, ".3f"),
    ("effective_rank", "rank", 1.0, ".1f"),
    ("loss", "loss", 1.0, ".3f"),
)
"""Column of a history, its heading, factor and format."""
_OF_ITSELF = ("seed", "name")
"""Keys that make no other setting: a seed has a column of its own, a name none."""
_NAMED_KEYS = 3  # more in a legend are no help
_PRINTED_KEYS = 6  # more columns are no table any more on a screen


@dataclass(frozen=True)
class Compared:
    """A run.

    Attributes:
        name: of its folder, or what the user called it.
        given: whether the user called it so.
        settings: dotted key -> value as JSON, of what matters for what is learned; None for a
            history without a config.
        rows: of its history, the untrained network's first.
        supervised: accuracy of the same network from scratch, where it was measured.
    """

    name: str
    given: bool
    settings: dict[str, str] | None
    rows: list[dict[str, float]]
    supervised: float | None

    @property
    def seed(self) -> str:
        return (self.settings or {}).get("seed", "")

    def last(self, measure: str) -> float | None:
        """A column when it was measured last, after the first step; None if it never was."""
        return next((row[measure] for row in reversed(self.rows[1:]) if measure in row), None)


def main(arguments: list[str] | None = None) -> int:
    """Prints a line a setting and writes table and figure; returns its exit code.

    0, where folders without a history are left out and named; 2 with a message and nothing written
    if no run remains, or if a path that is no folder is no history either.
    """
    parser = argparse.ArgumentParser(
        prog="python -m byol_tf.compare",
        description="Compares runs: which settings differ, accuracy, collapse measures, loss. Runs "
        "that differ by their seed are one line.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folders, or history.csv files; NAME=RUN gives one another name",
    )
    parser.add_argument(
        "--out",
        metavar="PNG",
        default="comparison.png",
        help="the figure; .csv and .md lie beside it (default: comparison.png)",
    )
    options = parser.parse_args(arguments)
    runs, without_history, wrong = [], [], []
    for text in options.runs:
        name, path = _named(text)
        try:
            runs.append(_read(name, path))
        except (OSError, ValueError, RunFolderError) as error:
            # `runs/*` has the folder of studies, and runs before their first row; a path that isn't
            # there is a slip.
            (without_history if path.is_dir() else wrong).append(
                f"{text}: expected a run folder with a history.csv; {error}"
            )
    if wrong or not runs:
        print("\n".join([*wrong, *without_history]), file=sys.stderr)
        return 2
    for line in without_history:
        print(f"left out: {line}", file=sys.stderr)
    keys = differing_keys(runs)
    groups = by_setting(runs, keys)
    table = markdown(groups, keys)
    figure = Path(options.out)
    files = {figure.with_suffix(".csv"): _csv(runs, keys), figure.with_suffix(".md"): table}
    try:
        figure.parent.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            write_atomically(path, content)
        _draw(figure, groups, keys)
    except OSError as error:
        print(f"--out {options.out}: can't be written: {error.strerror or error}", file=sys.stderr)
        return 2
    if len(keys) > _PRINTED_KEYS:
        table = (
            f"{markdown(groups, ())}\n{len(keys)} settings differ; {figure.with_suffix('.md')} "
            "has their columns\n"
        )
    print(f"{table}\n{', '.join(map(str, (figure, *files)))}")
    return 0


def _named(text: str) -> tuple[str, Path]:
    """(name, path) of `NAME=RUN`; the name of a mere path is ""."""
    name, path = "", Path(text)
    if not path.exists() and "=" in text:  # a name may have "=" in it, and so may a path
        name, _, rest = text.rpartition("=")
        path = Path(rest)
    return name, path


def _read(name: str, path: Path) -> Compared:
    """A run from its files. Raises `OSError`, `ValueError` or `RunFolderError` where they aren't
    those of a run."""
    folder = RunFolder(path)
    rows = read_history(folder.history if path.is_dir() else path)
    if not rows or "epoch" not in rows[0]:
        raise ValueError("its history has no epochs")
    saved = folder.saved_config() if path.is_dir() else None
    result = (folder.finished() or {}) if path.is_dir() else {}
    settings = None if saved is None else flat(saved)
    called = path.resolve().name if path.is_dir() else path.stem
    return Compared(name or called, bool(name), settings, rows, result.get("supervised_accuracy"))


def differing_keys(runs: Sequence[Compared]) -> list[str]:
    """The settings that aren't the same in all runs that have a config, in the config's order; seed
    and name left out."""
    known = [run.settings for run in runs if run.settings is not None]
    keys = dict.fromkeys(key for settings in known for key in settings if key not in _OF_ITSELF)
    return [key for key in keys if len({settings.get(key) for settings in known}) > 1]


def by_setting(runs: Sequence[Compared], keys: Sequence[str]) -> list[list[Compared]]:
    """Runs that differ by their seed at most are together; the best probe comes first, then those
    without one.

    A run that the user has named, one without a config, and one with a seed that is there already
    stand for themselves.
    """
    groups: dict[tuple, list[Compared]] = {}
    for number, run in enumerate(runs):
        place = (
            ("alone", number)
            if run.given or run.settings is None
            else tuple(run.settings.get(key) for key in keys)
        )
        if run.seed in [other.seed for other in groups.get(place, ())]:
            place = ("alone", number)
        groups.setdefault(place, []).append(run)
    return sorted(
        groups.values(), key=lambda group: -(_mean(group, "probe_accuracy") or float("-inf"))
    )


def _values(group: Sequence[Compared], measure: str) -> list[float]:
    return [value for run in group if (value := run.last(measure)) is not None]


def _mean(group: Sequence[Compared], measure: str) -> float | None:
    values = _values(group, measure)
    return statistics.mean(values) if values else None


def markdown(groups: Sequence[Sequence[Compared]], keys: Sequence[str]) -> str:
    """A table with a line a setting: mean, and standard deviation over seeds where there are
    several. Columns are aligned."""
    supervised = any(run.supervised is not None for group in groups for run in group)
    head = [
        "run",
        *keys,
        "seeds",
        "epochs",
        "untrained",
        *(heading for _, heading, *_ in _MEASURES),
    ]
    lines = [[*head, *(["supervised"] if supervised else [])]]
    for group in groups:
        first = group[0]
        name = first.name if len(group) == 1 else f"{first.name} and {len(group) - 1} more"
        epochs = sorted({f"{run.rows[-1]['epoch']:.0f}" for run in group}, key=int)
        line = [
            name,
            *(_shown(first, key) for key in keys),
            ", ".join(sorted(run.seed for run in group)),
            ", ".join(epochs),
        ]
        line.append(
            _text(
                [run.rows[0]["probe_accuracy"] for run in group if "probe_accuracy" in run.rows[0]],
                100.0,
                ".1f",
            )
        )
        line += [
            _text(_values(group, measure), factor, form) for measure, _, factor, form in _MEASURES
        ]
        if supervised:
            line.append(
                _text([run.supervised for run in group if run.supervised is not None], 100.0, ".1f")
            )
        lines.append(line)
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    ]
    text.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(text) + "\n"


def _shown(run: Compared, key: str) -> str:
    """A value as a person writes it."""
    return "" if run.settings is None else run.settings.get(key, "absent").strip('"')


def _text(values: Sequence[float], factor: float, form: str) -> str:
    if not values:
        return ""
    spread = f" ± {factor * statistics.stdev(values):{form}}" if len(values) > 1 else ""
    return f"{factor * statistics.mean(values):{form}}{spread}"


def _csv(runs: Sequence[Compared], keys: Sequence[str]) -> str:
    """A line a run, with accuracies as fractions."""
    measures = [measure for measure, *_ in _MEASURES]
    before, after = ("seed", "epochs", "untrained_probe_accuracy"), ("supervised_accuracy",)
    rows = []
    for run in runs:
        values = [run.rows[0].get("probe_accuracy"), *map(run.last, measures), run.supervised]
        settings = [_shown(run, key) for key in keys]
        rows.append(
            [
                run.name,
                *settings,
                run.seed,
                f"{run.rows[-1]['epoch']:.0f}",
                *("" if v is None else f"{v:.6g}" for v in values),
            ]
        )
    return csv_text(["run", *keys, *before, *measures, *after], rows)


def _draw(path: Path, groups: Sequence[Sequence[Compared]], keys: Sequence[str]) -> None:
    from byol_tf.runs.plots import setting_curves_figure

    labelled: dict[str, list] = {}
    for group in groups:
        label = group[0].name
        if not group[0].given and group[0].settings is not None and 0 < len(keys) <= _NAMED_KEYS:
            label = ", ".join(f"{key}={_shown(group[0], key)}" for key in keys)
        if label in labelled:
            label = f"{label} ({group[0].name})"
        while label in labelled:
            label += "'"
        labelled[label] = [run.rows for run in group]
    setting_curves_figure(path, "", labelled)


if __name__ == "__main__":
    sys.exit(main())
