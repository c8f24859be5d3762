"""What a run's files say, and what follows from it in plain words: for its report and for its model
card. Needs no TensorFlow."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path

from byol_tf.config.loading import load_config
from byol_tf.config.schedule import method_name
from byol_tf.config.schema import Config
from byol_tf.errors import RunFolderError
from byol_tf.runs.collapse import likely_cause, sign_of_collapse
from byol_tf.runs.folder import RunFolder, read_history

_NO_GAIN = 0.01
"""A difference of accuracies below this is called none; so is one below two standard errors, where
the number of test images is known."""


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run from its files.

    Attributes:
        root: its folder.
        config: with all keys.
        rows: of its history, that of the untrained network first; none or only that one while no
            epoch is done.
        result: `result.json`, or None while the run isn't finished.
        environment: versions, machine, git state and command.
        skipped: (path, reason) of the photos that couldn't be read.
    """

    root: Path
    config: Config
    rows: list[dict[str, float]]
    result: dict | None
    environment: dict
    skipped: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        """`demo: BYOL, convnet on textures`."""
        return (
            f"{self.config.name}: {method_name(self.config)}, {self.config.encoder.name} on "
            f"{self.config.data.source}"
        )

    @property
    def start(self) -> str:
        """What the network was before its first step, in a word or two."""
        return "untrained" if self.config.encoder.weights is None else "at its start"

    def first_and_last(self, measure: str) -> tuple[float | None, float | None]:
        """A column of the history, of the network before its first step and when it was measured
        last; None where it wasn't."""
        measured = [row[measure] for row in self.rows[1:] if measure in row]
        return self.rows[0].get(measure) if self.rows else None, measured[-1] if measured else None

    @property
    def supervised(self) -> float | None:
        """Accuracy of the same network from scratch on the probe's labels, if it was measured."""
        return (self.result or {}).get("supervised_accuracy")


def read_facts(folder: RunFolder) -> RunFacts:
    """Reads a run's files.

    Raises:
        RunFolderError: it isn't a run, or a file can't be read.
        ConfigError: its config is wrong.
    """
    if not folder.config.is_file():
        raise RunFolderError(
            f"--run {folder.root}: expected a run folder, with a config.json; found none there"
        )
    config = load_config(folder.config)
    try:
        rows = read_history(folder.history)
        environment = json.loads(folder.environment.read_text(encoding="utf-8"))
        skipped = _skipped(folder.skipped)
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"--run {folder.root}: expected the files that a run writes; received {error}"
        ) from error
    return RunFacts(folder.root, config, rows, folder.finished(), environment, skipped)


def _skipped(path: Path) -> tuple[tuple[str, str], ...]:
    if not path.exists():
        return ()
    with path.open(encoding="utf-8", newline="") as file:
        return tuple((row["path"], row["reason"]) for row in csv.DictReader(file))


def verdict(facts: RunFacts) -> list[str]:
    """Sentences on what came of a run: what was gained, against which baselines, whether it
    collapsed, what was left out."""
    sentences = [*_gain(facts), *_collapse(facts)]
    if facts.result is None:
        sentences.append(
            f"The run isn't finished: {facts.rows[-1]['epoch']:.0f} of "
            f"{facts.config.training.epochs} epochs are done."
        )
    if facts.skipped:
        count = len(facts.skipped)
        sentences.append(
            f"{_photos(count)} couldn't be read and {'was' if count == 1 else 'were'} left out."
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
            "neighbours below show what it takes for alike."
        ]
    network = (
        "the untrained network"
        if facts.config.encoder.weights is None
        else "the network it started from"
    )
    gain, least = after - before, _least_gain(facts, after)
    right = f"a linear classifier on the frozen encoder is right for {after:.1%} of the test images"
    if gain >= least:
        sentences = [
            f"The encoder has learned: {right}, {_points(gain)} more than on {network} "
            f"({before:.1%})."
        ]
    elif gain > -least:
        sentences = [
            f"The encoder has gained next to nothing: {right}, and for {before:.1%} on {network}; "
            "a difference of less than "
            f"{_points(least)} may be chance."
        ]
    else:
        sentences = [
            f"Training has made the encoder worse: {right}, {_points(-gain)} less than on "
            f"{network} ({before:.1%})."
        ]
    if (scratch := facts.supervised) is not None:
        ahead = after - scratch
        if ahead >= least:
            sentences.append(
                f"That is {_points(ahead)} more than the same network trained from scratch on the "
                f"same labels ({scratch:.1%})."
            )
        elif ahead > -least:
            sentences.append(
                "The same network trained from scratch on the same labels does about as well "
                f"({scratch:.1%})."
            )
        else:
            sentences.append(
                "The same network trained from scratch on the same labels does better, by "
                f"{_points(-ahead)} ({scratch:.1%})."
            )
    return sentences


def _least_gain(facts: RunFacts, accuracy: float) -> float:
    """The least difference of two accuracies that isn't called none."""
    count = facts.config.probe.test_images
    return (
        _NO_GAIN
        if count is None
        else max(_NO_GAIN, 2.0 * math.sqrt(2.0 * accuracy * (1.0 - accuracy) / count))
    )


def _collapse(facts: RunFacts) -> list[str]:
    untrained, *trained = facts.rows
    measured = ("projection_std", "projection_cosine", "effective_rank", "loss")
    if not all(name in trained[-1] for name in measured) or "projection_std" not in untrained:
        return []
    last = trained[-1]
    sign = sign_of_collapse(last, untrained, facts.config.objective)
    if sign is not None:
        cause, remedy = likely_cause(facts.config)
        return [f"It has collapsed: {sign}. Likely cause here: {cause}. To try: {remedy}."]
    where = (
        f"spread of projections {last['projection_std']:.2f}, where 1 is scattered and 0 collapsed"
    )
    return [f"There is no sign of collapse ({where}; effective rank {last['effective_rank']:.1f})."]


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _photos(count: int) -> str:
    return f"{count:,} photo{'s' if count != 1 else ''}"
