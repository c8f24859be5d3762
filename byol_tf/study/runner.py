"""The runs of a study: what is not yet done is done, by the commands that anyone would type; a
failure is noted and the rest goes on."""

import hashlib
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byol_tf.config.loading import resolved_json
from byol_tf.runs.files import write_atomically
from byol_tf.runs.folder import RunFolder, read_history
from byol_tf.study.plan import Planned
from byol_tf.train.signals import NUMBERS

_POLL_SECONDS = 0.5


class Stopped(Exception):
    """A signal asked to stop; the run that was on has saved. `number`: of the signal."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(frozen=True)
class Outcome:
    """What became of a cell with one seed.

    Attributes:
        planned: the cell.
        value: top-1 in %, None if it failed or is not yet done.
        result: of the run, {} without one.
        history: the run's rows, one an epoch.
        error: the last line that a failed command wrote, or which file of it can't be read.
    """

    planned: Planned
    value: float | None = None
    result: dict = field(default_factory=dict)
    history: tuple[dict[str, float], ...] = ()
    error: str = ""


class StudyRuns:
    """Runs and judgements under a root folder that studies share.

    ```
    ROOT/<recipe>-<digest of the config>/   a run folder, with
        evaluation/<protocol>-<digest of its words>/result.json
    ROOT/<recipe>-<digest>.json, .log       the config that was run, what the commands printed
    ```

    While it is entered as a context, the first signal that asks to stop goes on to the command that
    is on, and no further one is begun.

    Args:
        root: the folder.
        say: shows where things stand: what is on, and the share of it that is done, None where that
            is not known.
    """

    def __init__(
        self, root: Path, say: Callable[[str, float | None], None] = lambda what, share: None
    ):
        self.root, self.say = root, say
        self._received: int | None = None
        self._process: subprocess.Popen | None = None
        self._before: dict[int, object] = {}
        self._failed: dict[str, str] = {}

    def __enter__(self):
        # What is ignored already, as SIGHUP under `nohup`, stays ignored, here and in the commands.
        wanted = [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._stop) for number in wanted}
        return self

    def __exit__(self, *error):
        for number, former in self._before.items():
            signal.signal(number, former)

    def _stop(self, number: int, frame) -> None:
        self._received = self._received or number
        if self._process is not None:
            self._process.send_signal(number)

    def folder(self, planned: Planned) -> RunFolder:
        """The run's folder, there or not."""
        return RunFolder(self.root / planned.run_name)

    def judgement(self, planned: Planned) -> Path:
        """Where the figure of a cell is, there or not."""
        digest = hashlib.sha256("\n".join(planned.words).encode()).hexdigest()[:8]
        return (
            self.folder(planned).root
            / "evaluation"
            / f"{planned.words[0]}-{digest}"
            / "result.json"
        )

    def done(self, planned: Planned) -> bool:
        """Whether a cell has its figure."""
        return self.judgement(planned).exists()

    def trains(self, waiting: Sequence[Planned]) -> list[bool]:
        """For each, whether it needs a run that is neither there nor made for one before it."""
        names = [each.run_name for each in waiting]
        return [
            name not in names[:place] and not any(_read(self.folder(each).result, _object, {}))
            for place, (name, each) in enumerate(zip(names, waiting, strict=True))
        ]

    def outcome(self, planned: Planned, error: str = "") -> Outcome:
        """What is there of a cell. A file that can't be read makes it a failed one and ends
        nothing."""
        folder = self.folder(planned)
        value, broken_value = _read(
            self.judgement(planned), lambda path: 100.0 * _object(path)["top1"], None
        )
        result, broken_result = _read(folder.result, _object, {})
        history, broken_history = _read(folder.history, read_history, [])
        broken = broken_value or broken_result or broken_history
        return Outcome(
            planned, value, result, tuple(history), broken or ("" if value is not None else error)
        )

    def do(self, planned: Planned) -> str:
        """Makes a cell's run and its judgement, as far as they are missing. Returns "", or an error
        as `Outcome` has it.

        A run that failed for one cell isn't tried again for others that need it.

        Raises `Stopped` after a signal, when the command that was on has saved and ended.
        """
        folder = self.folder(planned)
        if planned.run_name in self._failed:
            return self._failed[planned.run_name]
        self.root.mkdir(parents=True, exist_ok=True)
        result, broken = _read(folder.result, _object, {})
        if broken:
            self._failed[planned.run_name] = broken
            return broken
        if not result:
            config = self.root / f"{planned.run_name}.json"
            write_atomically(config, resolved_json(planned.config))
            words = ["byol_tf.train", "--config", str(config), "--run-dir", str(folder.root)]
            if error := self._command(planned, "training", words, folder):
                self._failed[planned.run_name] = error
                return error
        if not self.done(planned):
            out = self.judgement(planned).parent
            words = [
                "byol_tf.evaluate",
                *planned.words,
                "--run",
                str(folder.root),
                "--out",
                str(out),
            ]
            if error := self._command(planned, planned.words[0], words, None):
                return error
        return ""

    def _command(
        self, planned: Planned, what: str, words: Sequence[str], watched: RunFolder | None
    ) -> str:
        log, epochs = self.root / f"{planned.run_name}.log", planned.config.training.epochs
        if self._received:
            raise Stopped(self._received)
        with log.open("ab") as file:
            file.write(f"$ {shlex.join(['python', '-m', *words])}\n".encode())
            file.flush()
            start = file.tell()
            # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
            # Twice would end a run unsaved.
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            if self._received:  # it came before there was a process that it could be passed on to
                process.send_signal(self._received)
            while process.poll() is None:
                self.say(
                    what,
                    None
                    if watched is None
                    else max(len(_read(watched.history, read_history, [])[0]) - 1, 0) / epochs,
                )
                time.sleep(_POLL_SECONDS)
            self._process = None
        if self._received:
            raise Stopped(self._received)
        if process.returncode == 0:
            return ""
        lines = [
            line.strip()
            for line in log.read_bytes()[start:].decode(errors="replace").splitlines()
            if line.strip()
        ]
        return (
            f"{what} ended with {process.returncode}: "
            f"{lines[-1] if lines else 'nothing printed'} (see {log})"
        )


def _read(path: Path, read: Callable[[Path], Any], otherwise: Any) -> tuple[Any, str]:
    """(what a file says, or `otherwise` without it; "", or why it can't be read)."""
    if not path.exists():
        return otherwise, ""
    try:
        return read(path), ""
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        again = ". Remove it to have it made again" if path.name == "result.json" else ""
        return (
            otherwise,
            f"{path}: expected what its command wrote; received {type(error).__name__}: "
            f"{error}{again}",
        )


def _object(path: Path) -> dict:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{content!r:.40}")
    return content
