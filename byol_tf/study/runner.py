"""Runs what is missing of a study, by the commands that anyone would type.

A failure is recorded and the other cells are run all the same.
"""

import contextlib
import hashlib
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from byol_tf.command_line import PARENT_VARIABLE, stop_signals_handled
from byol_tf.config.loading import resolved_json
from byol_tf.runs.files import append_to, read_csv, write_atomically
from byol_tf.runs.folder import RunFolder, is_figure, read_history, read_result
from byol_tf.study.plan import PlannedCell

_POLL_SECONDS = 0.5

OnProgress = Callable[[str, float | None], None]
"""Called with what is in progress and its share that is done, from 0 to 1, or None if that isn't
known."""
Task = Generator[None, None, str]
"""Work of commands, in steps: yields while it waits for a command, and returns an error or ""."""


class Stopped(Exception):
    """A signal asked to stop; the runs that were in progress have saved.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(frozen=True)
class Outcome:
    """Result of a cell with one seed.

    Attributes:
        planned: the cell and its seed.
        value: the measure's accuracy in %, or None if it failed or isn't done yet.
        result: the run's `result.json`, {} without one.
        history: the run's rows, one an epoch.
        error: the last line that a failed command wrote, or which of its files can't be read.
        test_images: number of images that it was evaluated on, if it is the share of those.
        chance: the accuracy there of always predicting the most frequent class, from 0 to 1.
        tuning: of an evaluation that trains the network: of each of its seeds the loss and accuracy
            of the training images, a row an epoch.
    """

    planned: PlannedCell
    value: float | None = None
    result: dict = field(default_factory=dict)
    history: tuple[dict[str, float], ...] = ()
    error: str = ""
    test_images: int | None = None
    chance: float | None = None
    tuning: tuple[list[dict[str, float]], ...] = ()


class StudyRunner:
    """Runs and evaluations under a root folder that studies share.

    ```
    ROOT/<recipe>-<digest of the config>/   a run folder, with
        evaluation/<protocol>-<digest of its words>/result.json
    ROOT/<recipe>-<digest>.json, .log       the config of the run, the output of its commands
    ```

    Inside its context, a signal that asks to stop is passed on to the commands in progress, and no
    other command is started.

    Args:
        root: the folder.
        jobs: number of commands that will be in progress at a time.
    """

    def __init__(self, root: Path, jobs: int = 1):
        self.root = root
        self._environment = os.environ | {PARENT_VARIABLE: str(os.getpid())}
        if jobs > 1:  # or the first command would take all memory of a GPU
            self._environment |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        self._received: list[int] = []  # signals
        self._exit = contextlib.ExitStack()
        self._failed: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._exit.enter_context(
            stop_signals_handled(lambda number, _: self._received.append(number))
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.close()

    def folder(self, planned: PlannedCell) -> RunFolder:
        """Returns the run's folder, whether it exists or not."""
        return RunFolder(self.root / planned.run_name)

    def evaluation_path(self, planned: PlannedCell) -> Path:
        """Returns the file with the figure of a cell, whether it exists or not."""
        digest = hashlib.sha256("\n".join(planned.words).encode()).hexdigest()[:8]
        name = f"{planned.words[0]}-{digest}"
        return self.folder(planned).root / "evaluation" / name / "result.json"

    def done(self, planned: PlannedCell) -> bool:
        """Returns whether a cell has its figure."""
        return self.evaluation_path(planned).exists()

    def needs_training(self, waiting: Sequence[PlannedCell]) -> list[bool]:
        """Returns for each cell whether it is the first that needs a run which isn't finished."""
        needed, seen = [], set[str]()
        for planned in waiting:
            result, error = _read(self.folder(planned).result, read_result, {})
            needed.append(planned.run_name not in seen and not result and not error)
            seen.add(planned.run_name)
        return needed

    def outcome(self, planned: PlannedCell, error: str = "") -> Outcome:
        """Returns what exists of a cell; a file that can't be read makes it a failed one.

        Args:
            planned: the cell and its seed.
            error: of its commands, for a cell without a figure.
        """
        folder = self.folder(planned)
        nothing = (None, None, None)
        path = self.evaluation_path(planned)
        evaluation, broken_value = _read(path, partial(_evaluation, figure=planned.figure), nothing)
        value, test_images, chance = evaluation
        result, broken_result = _read(folder.result, read_result, {})
        history, broken_history = _read(folder.history, read_history, [])
        tuning, broken_tuning = _read(path.with_name("curve.csv"), _tuning, ())
        broken = broken_value or broken_result or broken_history or broken_tuning
        error = broken or ("" if value is not None else error)
        return Outcome(planned, value, result, tuple(history), error, test_images, chance, tuning)

    def run(self, planned: PlannedCell, on_progress: OnProgress) -> Task:
        """Makes a cell's run and its evaluation, as far as they are missing.

        Returns:
            "", or an error as `Outcome` has it.

        Raises:
            Stopped: after a signal, once the command in progress has saved and ended.
        """
        error = yield from self.train(planned, on_progress)
        if error or self.done(planned):
            return error
        folder, out = self.folder(planned), self.evaluation_path(planned).parent
        words = ["byol_tf.evaluate", *planned.words, "--run", str(folder.root), "--out", str(out)]
        return (yield from self._command(planned, planned.words[0], words, None, on_progress))

    def train(
        self,
        planned: PlannedCell,
        on_progress: OnProgress,
        should_stop: Callable[[list[dict[str, float]]], bool] = lambda rows: False,
    ) -> Task:
        """Makes a cell's run, if it is missing.

        A run that failed for one cell isn't tried again for others that need it.

        Args:
            planned: the cell and its seed.
            on_progress: called again and again.
            should_stop: called again and again with the rows of the run's history so far. Once it
                returns True the run saves and ends, to be resumed by another call.

        Returns:
            As `run`; "" for a run that was stopped.

        Raises:
            Stopped: as `run`.
        """
        folder = self.folder(planned)
        if planned.run_name in self._failed:
            return self._failed[planned.run_name]
        self.root.mkdir(parents=True, exist_ok=True)
        result, error = _read(folder.result, read_result, {})
        if not error and not result:
            config = self.root / f"{planned.run_name}.json"
            write_atomically(config, resolved_json(planned.config))
            words = ["byol_tf.train", "--config", str(config), "--run-dir", str(folder.root)]
            error = yield from self._command(
                planned, "training", words, folder, on_progress, should_stop
            )
        if error:
            self._failed[planned.run_name] = error
        return error

    def _command(
        self,
        planned: PlannedCell,
        activity: str,
        words: Sequence[str],
        folder: RunFolder | None,
        on_progress: OnProgress,
        should_stop: Callable[[list[dict[str, float]]], bool] = lambda rows: False,
    ) -> Task:
        """Runs a command to its end; returns its error, or "". The folder's history is watched."""
        stopping, passed_on = False, 0
        if self._received:
            raise Stopped(self._received[0])
        log, epochs = self.root / f"{planned.run_name}.log", planned.config.training.epochs
        with append_to(log) as file:
            file.write(f"$ {shlex.join(['python', '-m', *words])}\n".encode())
            file.flush()
            start = file.tell()
            # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
            # A second one ends a run unsaved.
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env=self._environment,
            )
            while process.poll() is None:
                for number in self._received[passed_on:]:
                    process.send_signal(number)
                    passed_on += 1
                share = None
                if folder is not None:
                    rows, _ = _read(folder.history, read_history, [])
                    share = max(len(rows) - 1, 0) / epochs  # the first row is the untrained network
                    if not stopping and should_stop(rows):
                        stopping = True
                        process.terminate()
                on_progress(activity, share)
                yield
        if self._received:
            raise Stopped(self._received[0])
        if process.returncode == 0 or (
            stopping and process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
        ):
            return ""
        output = log.read_bytes()[start:].decode(errors="replace")
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        last = lines[-1] if lines else "nothing printed"
        return f"{activity} ended with {process.returncode}: {last} (see {log})"


def run_side_by_side(tasks: Iterable[Task], jobs: int = 1) -> list[str]:
    """Runs tasks to their ends, so many at a time, begun in order.

    Returns:
        What they returned, in the order of their ends.

    Raises:
        Stopped: after a signal, once the commands of all tasks have ended.
    """
    waiting, running = iter(tasks), list[Task]()
    ended: list[str] = []
    stopped = None
    while True:
        if stopped is None:
            running += itertools.islice(waiting, jobs - len(running))
        if not running:
            break
        for task in list(running):
            try:
                next(task)
                continue
            except StopIteration as end:
                ended.append(end.value)
            except Stopped as error:
                stopped = error
            running.remove(task)
        time.sleep(_POLL_SECONDS)
    if stopped is not None:
        raise stopped
    return ended


def _read(path: Path, read: Callable[[Path], Any], default: Any) -> tuple[Any, str]:
    """Returns (the file's content, ""), or (default, "" or why the file can't be read)."""
    if not path.exists():
        return default, ""
    try:
        return read(path), ""
    except (OSError, ValueError) as error:
        again = ". Remove it to have it made again" if path.name == "result.json" else ""
        received = f"{type(error).__name__}: {error}"
        return default, f"{path}: expected what its command wrote; received {received}{again}"


def _evaluation(path: Path, figure: str) -> tuple[float, int | None, float | None]:
    """Reads an evaluation.

    Returns:
        Its accuracy in %; the number of images that this is a share of, None for a mean over
        classes; and chance, None for a figure other than top-1.
    """
    result = read_result(path)
    accuracy = result.get(figure)
    if not is_figure(accuracy):
        raise ValueError(f"expected a number {figure}; received {accuracy!r:.40}")
    test_images = None if figure == "mean_per_class" else result.get("test_images")
    return 100.0 * accuracy, test_images, result.get("chance") if figure == "top1" else None


def _tuning(path: Path) -> tuple[list[dict[str, float]], ...]:
    """Reads the curve of an evaluation: the rows of each of its seeds."""
    columns = ("seed", "epoch", "loss", "accuracy")
    rows = [{name: float(row[name]) for name in columns} for row in read_csv(path, columns)]
    return tuple(list(of_seed) for _, of_seed in itertools.groupby(rows, lambda row: row["seed"]))
