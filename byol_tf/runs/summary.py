"""Facts of a run, read from its files, and a verdict in sentences, for report and model card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byol_tf.config.loading import load_config
from byol_tf.config.schedule import method_name
from byol_tf.config.schema import Config
from byol_tf.errors import RunFolderError
from byol_tf.logs import counted
from byol_tf.runs.accuracy import Accuracy, Difference, difference
from byol_tf.runs.best_epoch import METRICS, exported_epoch
from byol_tf.runs.collapse import STD, detect_collapse, likely_cause
from byol_tf.runs.files import read_csv
from byol_tf.runs.folder import SKIPPED_COLUMNS, RunFolder, read_environment, read_history

ACCURACIES = (("probe_accuracy", "linear probe"), ("knn_accuracy", "nearest neighbours"))
"""Columns of a history, and their names for people."""
PROBE_IMAGE = {"test": "test image", "held_out": "held-out training image"}
"""`probe.split` -> the name for people of an image that accuracies are measured on."""
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
        test_images: number of images that accuracies are measured on; None if it isn't known.
    """

    root: Path
    config: Config
    rows: list[dict[str, float]]
    result: dict[str, Any] | None
    environment: dict[str, Any]
    skipped: tuple[tuple[str, str], ...]
    test_images: int | None = None

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

    @property
    def probe_image(self) -> str:
        """Name of an image that accuracies are measured on: `test image`, say."""
        return PROBE_IMAGE[self.config.probe.split]

    @property
    def exported_epoch(self) -> int:
        """Epoch of the exported encoder; while the run isn't finished, of the one so far."""
        exported = (self.result or {}).get("exported_epoch")
        return exported_epoch(self.config, self.rows) if exported is None else int(exported)

    @property
    def exported_rows(self) -> list[dict[str, float]]:
        """The rows up to that of the exported encoder."""
        return [row for row in self.rows if row["epoch"] <= self.exported_epoch]

    def first_and_last(self, measure: str) -> tuple[float | None, float | None]:
        """Returns a column of the history before the first step and of the exported encoder.

        Args:
            measure: name of the column.

        Returns:
            (value before the first step, last value that was measured up to the exported epoch),
            each None where it wasn't measured.
        """
        measured = [row[measure] for row in self.exported_rows[1:] if measure in row]
        return self.rows[0].get(measure) if self.rows else None, measured[-1] if measured else None

    def accuracies(self, measure: str) -> tuple[Accuracy, Accuracy] | None:
        """Returns an accuracy before the first step and the last one; None if either is missing.

        Args:
            measure: name of its column.
        """
        before, after = self.first_and_last(measure)
        if before is None or after is None:
            return None
        return Accuracy(before, self.test_images), Accuracy(after, self.test_images)

    @property
    def supervised(self) -> Accuracy | None:
        """Accuracy of the same network trained from scratch on the probe's labels, if measured."""
        value = (self.result or {}).get("supervised_accuracy")
        return None if value is None else Accuracy(value, self.test_images)

    @property
    def chance(self) -> float | None:
        """Accuracy of always predicting the most frequent class of the test images, if known."""
        return (self.result or {}).get("chance")


def read_facts(folder: RunFolder) -> RunFacts:
    """Reads the facts of a run from its files.

    Args:
        folder: of the run.

    Raises:
        RunFolderError: if it isn't a run, or a file can't be read.
        ConfigError: if its config is invalid.
    """
    folder.require_config()
    config = load_config(folder.config)
    try:
        rows = read_history(folder.history)
        environment = read_environment(folder.environment)
        skipped = _skipped(folder.skipped)
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"--run {folder.root}: expected the files that a run writes; received {error}"
        ) from error
    result = folder.finished()
    test_images = (result or {}).get("test_images")
    exported = (result or {}).get("exported_epoch")
    if exported is not None and exported not in [row["epoch"] for row in rows[1:]]:
        raise RunFolderError(
            f"{folder.result}: expected an exported_epoch that {folder.history.name} has; "
            f"received {exported}"
        )
    return RunFacts(folder.root, config, rows, result, environment, skipped, test_images)


def _skipped(path: Path) -> tuple[tuple[str, str], ...]:
    try:
        rows = read_csv(path, SKIPPED_COLUMNS)
    except FileNotFoundError:
        return ()
    return tuple((row["path"], row["reason"]) for row in rows)


def verdict(facts: RunFacts) -> list[str]:
    """Returns sentences on a run: its gain, against which baselines, collapse, and skipped data.

    Args:
        facts: of the run, with one row or more.
    """
    sentences = [*gain_sentences(facts), *_collapse(facts), *export_sentences(facts)]
    if facts.result is None:
        sentences.append(
            f"The run isn't finished: {facts.rows[-1]['epoch']:.0f} of "
            f"{facts.config.training.epochs} epochs are done."
        )
    if facts.skipped:
        count = len(facts.skipped)
        sentences.append(
            f"{counted(count, 'photo')} couldn't be read and {'was' if count == 1 else 'were'} "
            "skipped."
        )
    if leaked := (facts.result or {}).get("leaked_test_images"):
        sentences.append(f"{leak_text(leaked)}.")
    if steps := (facts.result or {}).get("skipped_steps"):
        sentences.append(
            f"{steps:,} step{'s' if steps != 1 else ''} had numbers that weren't finite and "
            "changed nothing."
        )
    return sentences


def leak_text(leaked: int) -> str:
    """Returns what a number of test photos that are also learned from means for accuracies."""
    return (
        f"{leaked:,} test photo{'s are' if leaked != 1 else ' is'} also among the photos to learn "
        "from, as exact copies, so the accuracies are too high"
    )


def gain_sentences(facts: RunFacts) -> list[str]:
    """Returns whether training has helped as far as the test images can tell, in sentences."""
    measured = [
        (name, *accuracies, difference(*accuracies))
        for measure, name in ACCURACIES
        if (accuracies := facts.accuracies(measure)) is not None
    ]
    if not measured:
        return [
            "There are no labelled images, so nothing here says how good the encoder is; the "
            "report's neighbours show which images it finds alike."
        ]
    figures = "; ".join(
        f"{name} {after.fraction:.1%}, {facts.start} {before.fraction:.1%} ({_points(change)})"
        for name, before, after, change in measured
    )
    signs = {change.sign for *_, change in measured}
    if {1, -1} <= signs:
        headline = "The measures disagree on whether the encoder has learned"
    elif 1 in signs:
        headline = "The encoder has learned"
    elif -1 in signs:
        headline = "Training has made the encoder worse"
    else:
        headline = f"Whether the encoder has learned can't be told {_with_images(facts)}"
    sentences = [f"{headline}: {figures}."]
    probe = facts.accuracies("probe_accuracy")
    if probe is not None and facts.supervised is not None:
        sentences.append(_supervised_comparison(probe[1], facts.supervised, facts))
    return sentences


def export_sentences(facts: RunFacts) -> list[str]:
    """Returns when a finished run stopped early, and which epoch it exported, in sentences."""
    if facts.result is None:
        return []
    monitor, epochs = facts.config.monitor, int(facts.rows[-1]["epoch"])
    metric = METRICS[monitor.metric]
    sentences = []
    if epochs < facts.config.training.epochs:
        by = f" by more than {monitor.min_delta:g}" if monitor.min_delta else ""
        sentences.append(
            f"It stopped early, after epoch {epochs} of {facts.config.training.epochs}: the last "
            f"{counted(monitor.early_stopping or 0, 'measurement')} didn't raise the {metric}{by}."
        )
    if facts.config.run.export == "best":
        sentences.append(
            f"The exported encoder is that of epoch {facts.exported_epoch}, which has the "
            f"highest {metric}."
        )
    return sentences


def _supervised_comparison(probe: Accuracy, supervised: Accuracy, facts: RunFacts) -> str:
    """Returns a sentence on the probe's accuracy and that of the supervised baseline."""
    change = difference(supervised, probe)
    network = (
        f"the same network trained from scratch on the same labels ({supervised.fraction:.1%})"
    )
    if not change.sign:
        return f"Whether it is better than {network} can't be told {_with_images(facts)}."
    comparison = "better" if change.sign > 0 else "worse"
    return f"The linear probe is {comparison} than {network}: {_points(change)}."


def _points(change: Difference) -> str:
    """Formats a difference as `+44.1 points, 95% interval +40.2 to +47.8`."""
    text = f"{100 * change.value:+.1f} points"
    if (change.low, change.high) == (-1.0, 1.0):
        return text
    return f"{text}, 95% interval {100 * change.low:+.1f} to {100 * change.high:+.1f}"


def _with_images(facts: RunFacts) -> str:
    if facts.test_images is None:
        return f"without the number of {facts.probe_image}s"
    return f"with {counted(facts.test_images, facts.probe_image)}"


def _collapse(facts: RunFacts) -> list[str]:
    untrained, *trained = facts.exported_rows
    last = trained[-1]
    if not last.keys() >= set(_COLLAPSE_MEASURES) or "projection_std" not in untrained:
        return []
    collapse = detect_collapse(last, untrained, facts.config.objective)
    if collapse is not None:
        cause, remedy = likely_cause(facts.config)
        return [f"It has collapsed: {collapse}. Likely cause here: {cause}. To try: {remedy}."]
    if last["projection_std"] < STD:
        return [
            "Whether it has collapsed can't be told: different images have nearly the same "
            f"projection (std {last['projection_std']:.4f}), but so they had before training "
            f"({untrained['projection_std']:.4f})."
        ]
    return [
        f"There is no sign of collapse (std of projections {last['projection_std']:.2f}, where 1 "
        f"is scattered and 0 collapsed; effective rank {last['effective_rank']:.1f})."
    ]
