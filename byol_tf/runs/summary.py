"""Facts of a run, read from its files, and a verdict in sentences, for report and model card."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byol_tf.config.loading import load_config
from byol_tf.config.schedule import method_name
from byol_tf.config.schema import Config
from byol_tf.errors import RunFolderError, describe_path
from byol_tf.runs.collapse import detect_collapse, likely_cause
from byol_tf.runs.files import name_of_cell, read_csv
from byol_tf.runs.folder import SKIPPED_COLUMNS, RunFolder, read_environment, read_history

_LEAST_GAIN = 0.01
"""A smaller difference of accuracies counts as none; so does one below two standard errors, where
the number of test images is known."""
_COLLAPSE_MEASURES = ("projection_std", "projection_cosine", "effective_rank", "loss")


@dataclass(frozen=True)
class RunFacts:
    """Facts of a run, as its files have them.

    Attributes:
        root: the run's folder.
        config: the config, with all keys.
        rows: of the history, that of the untrained network first; empty or only that one while no
            epoch is complete.
        result: content of `result.json`; None while the run isn't finished.
        environment: versions, machine, git state and command.
        skipped: (path, reason) of each photo that couldn't be read.
    """

    root: Path
    config: Config
    rows: list[dict[str, float]]
    result: dict[str, Any] | None
    environment: dict[str, Any]
    skipped: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        """Title such as `demo: BYOL, convnet on textures`."""
        return (
            f"{self.config.name}: {method_name(self.config)}, {self.config.encoder.name} on "
            f"{self.config.data.source}"
        )

    @property
    def start(self) -> str:
        """Name of the network before its first step: `untrained`, or `at its start`."""
        return "untrained" if self.config.encoder.weights is None else "at its start"

    def first_and_last(self, measure: str) -> tuple[float | None, float | None]:
        """Returns the first and the last value of a column of the history.

        Args:
            measure: name of the column.

        Returns:
            (value before the first step, last value that was measured), each None where it wasn't
            measured.
        """
        measured = [row[measure] for row in self.rows[1:] if measure in row]
        return self.rows[0].get(measure) if self.rows else None, measured[-1] if measured else None

    @property
    def supervised(self) -> float | None:
        """Accuracy of the same network trained from scratch on the probe's labels, if measured."""
        return (self.result or {}).get("supervised_accuracy")


def read_facts(folder: RunFolder) -> RunFacts:
    """Reads the facts of a run from its files.

    Args:
        folder: of the run.

    Raises:
        RunFolderError: if it isn't a run, or a file can't be read.
        ConfigError: if its config is invalid.
    """
    if not os.path.isfile(folder.config):
        raise RunFolderError(
            f"--run {folder.root}: expected a run folder, with a config.json; "
            f"{describe_path(folder.config, 'found none there')}"
        )
    config = load_config(folder.config)
    try:
        rows = read_history(folder.history)
        environment = read_environment(folder.environment)
        skipped = _skipped(folder.skipped)
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"--run {folder.root}: expected the files that a run writes; received {error}"
        ) from error
    return RunFacts(folder.root, config, rows, folder.finished(), environment, skipped)


def _skipped(path: Path) -> tuple[tuple[str, str], ...]:
    try:
        rows = read_csv(path, SKIPPED_COLUMNS)
    except FileNotFoundError:
        return ()
    return tuple((name_of_cell(row["path"]), row["reason"]) for row in rows)


def verdict(facts: RunFacts) -> list[str]:
    """Returns sentences on a run: its gain, against which baselines, collapse, and skipped data.

    Args:
        facts: of the run, with one row or more.
    """
    sentences = [*_gain(facts), *_collapse(facts)]
    if facts.result is None:
        sentences.append(
            f"The run isn't finished: {facts.rows[-1]['epoch']:.0f} of "
            f"{facts.config.training.epochs} epochs are done."
        )
    if facts.skipped:
        count = len(facts.skipped)
        sentences.append(
            f"{_photos(count)} couldn't be read and {'was' if count == 1 else 'were'} skipped."
        )
    if leaked := (facts.result or {}).get("leaked_test_images"):
        sentences.append(
            f"{leaked:,} test photo{'s are' if leaked != 1 else ' is'} also among the photos to "
            "learn from, as exact copies, so the accuracies are too high."
        )
    if steps := (facts.result or {}).get("skipped_steps"):
        sentences.append(
            f"{steps:,} step{'s' if steps != 1 else ''} had numbers that weren't finite and "
            "changed nothing."
        )
    return sentences


def _gain(facts: RunFacts) -> list[str]:
    before, after = facts.first_and_last("probe_accuracy")
    if before is None or after is None:
        return [
            "There are no labelled images, so nothing here says how good the encoder is; the "
            "neighbours below show which images it finds alike."
        ]
    network = (
        "the untrained network"
        if facts.config.encoder.weights is None
        else "the network it started from"
    )
    gain, least = after - before, _least_gain(facts, after)
    accuracy = (
        f"a linear classifier on the frozen encoder is right for {after:.1%} of the test images"
    )
    if gain >= least:
        sentence = (
            f"The encoder has learned: {accuracy}, {_points(gain)} more than on {network} "
            f"({before:.1%})."
        )
    elif gain > -least:
        sentence = (
            f"The encoder has gained next to nothing: {accuracy}, and for {before:.1%} on "
            f"{network}; a difference of less than {_points(least)} may be chance."
        )
    else:
        sentence = (
            f"Training has made the encoder worse: {accuracy}, {_points(-gain)} less than on "
            f"{network} ({before:.1%})."
        )
    if facts.supervised is None:
        return [sentence]
    return [sentence, _supervised_comparison(after, facts.supervised, least)]


def _supervised_comparison(accuracy: float, supervised: float, least: float) -> str:
    """Returns a sentence on the probe's accuracy and that of the supervised baseline."""
    gain = accuracy - supervised
    if gain >= least:
        return (
            f"That is {_points(gain)} more than the same network trained from scratch on the "
            f"same labels ({supervised:.1%})."
        )
    if gain > -least:
        return (
            "The same network trained from scratch on the same labels does about as well "
            f"({supervised:.1%})."
        )
    return (
        "The same network trained from scratch on the same labels does better, by "
        f"{_points(-gain)} ({supervised:.1%})."
    )


def _least_gain(facts: RunFacts, accuracy: float) -> float:
    """Returns the least difference of two accuracies that counts as one."""
    count = facts.config.probe.test_images
    if count is None:
        return _LEAST_GAIN
    return max(_LEAST_GAIN, 2.0 * math.sqrt(2.0 * accuracy * (1.0 - accuracy) / count))


def _collapse(facts: RunFacts) -> list[str]:
    untrained, *trained = facts.rows
    last = trained[-1]
    if not last.keys() >= set(_COLLAPSE_MEASURES) or "projection_std" not in untrained:
        return []
    collapse = detect_collapse(last, untrained, facts.config.objective)
    if collapse is not None:
        cause, remedy = likely_cause(facts.config)
        return [f"It has collapsed: {collapse}. Likely cause here: {cause}. To try: {remedy}."]
    return [
        f"There is no sign of collapse (std of projections {last['projection_std']:.2f}, where 1 "
        f"is scattered and 0 collapsed; effective rank {last['effective_rank']:.1f})."
    ]


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _photos(count: int) -> str:
    return f"{count:,} photo{'s' if count != 1 else ''}"
