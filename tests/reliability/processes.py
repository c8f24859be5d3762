"""Real processes that run the real command on a tiny experiment, and what they write."""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from byol_tf.runs.checkpoints import list_checkpoints, position_of, read_newest
from tests.helpers.waiting import HANG, wait_until

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS, BATCH, REST = 3, 8, 16, 3
ALL_STEPS = EPOCHS * STEPS
CONFIG = {
    "name": "tiny",
    "data": {"source": "textures", "pretrain_images": BATCH * STEPS + REST},
    "views": {"size": 24, "engine": "fused"},
    "encoder": {"name": "convnet", "width": 0.25},
    "projector": {"hidden_size": 32, "output_size": 16},
    "predictor": {"hidden_size": 32},
    "tau": {"base": 0.99},
    "optimizer": {"base_learning_rate": 0.002, "reference_batch_size": None},
    "training": {"epochs": EPOCHS, "batch_size": BATCH, "deterministic": True},
    "devices": {"strategy": "cpu"},
    "probe": {"train_images": 50, "test_images": 50, "neighbours": 5},
    "run": {
        "checkpoint_every_steps": 1,
        "checkpoint_every_minutes": None,
        "keep_checkpoints": 100,
        "report": False,
    },
}
"""24 steps in 3 epochs of 8; each epoch skips another 3 images, which fill no batch."""
SAVE_ON_SIGNAL_ONLY = {"run.checkpoint_every_steps": None}
"""Within an epoch only a signal saves."""


@dataclass
class Process:
    """A process that `Processes` has started; `output` is what it printed so far."""

    number: int
    output_file: Path
    pid: int | None = None
    code: int | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float = HANG) -> int:
        """Returns its exit code, negative for a signal; fails the test if it takes longer."""
        if not self.ended.wait(seconds):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            pytest.fail(f"still there after {seconds:g} s: {self.output[-3000:]}")
        return self.code

    def send(self, name: str) -> None:
        """Sends it the signal of a name, if it hasn't ended."""
        self.begun.wait(HANG)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, getattr(signal, name))

    @property
    def output(self) -> str:
        return self.output_file.read_text()


class Processes:
    """Starts processes, forked from one that has imported TensorFlow and not used it.

    See `child.py`.
    """

    def __enter__(self) -> "Processes":
        environment = os.environ | {
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        line = [sys.executable, "-m", "tests.reliability.child"]
        self._server = subprocess.Popen(
            line, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._all: dict[int, Process] = {}
        self._numbers = itertools.count()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self

    def __exit__(self, *_) -> None:
        for process in self._all.values():
            if process.pid is not None and process.code is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        self._server.stdin.close()
        self._server.wait(HANG)
        self._listener.join(HANG)
        self._server.stdout.close()

    def start(self, run: "Run", environment: dict[str, str] | None = None, **job) -> Process:
        """Starts a training in a run's folder; `job` has the keys that `child.py` lists."""
        number = next(self._numbers)
        run.folder.mkdir(parents=True, exist_ok=True)
        process = self._all[number] = Process(number, run.folder / f"output-{number}.txt")
        request = {
            "number": number,
            "arguments": run.arguments(),
            "output": str(process.output_file),
            "record": str(run.record),
        }
        self._request(request | {"environment": environment or {}} | job)
        return process

    def read(self, folder: Path, **options) -> Process:
        """Starts a reader of batches: see `reader.py`."""
        number = next(self._numbers)
        process = self._all[number] = Process(number, folder / f"output-{number}.txt")
        self._request({"number": number, "output": str(process.output_file), "read": options})
        return process

    def _request(self, job: dict) -> None:
        text = json.dumps(job) + "\n"
        self._server.stdin.write(text.encode())
        self._server.stdin.flush()

    def finish(self, run: "Run", **job) -> Process:
        """Trains to the end; fails the test at another exit code than 0."""
        process = self.start(run, **job)
        assert process.wait() == 0, process.output[-3000:]
        return process

    def pair(self, run: "Run", jobs: tuple[dict, dict] = ({}, {})) -> tuple[Process, Process]:
        """Starts the two workers of one run; the second has a record of its own."""
        # Both sockets at once, or both may get the same port.
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            addresses = [f"127.0.0.1:{bound.getsockname()[1]}" for bound in (one, other)]
        pair = []
        for index, job in enumerate(jobs):
            cluster = json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            )
            record = {"record": f"{run.record}{'-other' if index else ''}"}
            pair.append(self.start(run, {"TF_CONFIG": cluster}, **record | job))
        return tuple(pair)

    def finish_pair(self, run: "Run", jobs: tuple[dict, dict] = ({}, {})) -> None:
        """Trains to the end with two workers; fails the test at another exit code than 0."""
        for process in self.pair(run, jobs):
            assert process.wait() == 0, process.output[-3000:]

    def _listen(self) -> None:
        for line in self._server.stdout:
            message = json.loads(line)
            process = self._all[message["number"]]
            process.pid = message.get("pid", process.pid)
            process.begun.set()
            if "code" in message:
                process.code = message["code"]
                process.ended.set()


class Run:
    """The folder of a run of the tiny experiment.

    Args:
        folder: of its config, its outputs and its record; the run folder is `run` in it.
        **changes: dotted keys of CONFIG, with other values.
    """

    def __init__(self, folder: Path, **changes):
        self.folder, self.root, self.record, self.changes = (
            folder,
            folder / "run",
            folder / "steps.jsonl",
            changes,
        )

    def arguments(self) -> list[str]:
        """Writes the config; returns the arguments of the command."""
        config = json.loads(json.dumps(CONFIG))
        for key, value in self.changes.items():
            section, _, name = key.partition(".")
            if name:
                config.setdefault(section, {})[name] = value
            else:
                config[section] = value
        (self.folder / "tiny.json").write_text(json.dumps(config))
        return ["--config", str(self.folder / "tiny.json"), "--run-dir", str(self.root)]

    def steps(self, other: bool = False) -> list[dict]:
        """Returns the lines of the record, as written, without the time."""
        return [
            {key: value for key, value in line.items() if key != "time"}
            for line in self.lines(other)
        ]

    def lines(self, other: bool = False) -> list[dict]:
        """Returns the lines of the record, with the time."""
        path = Path(f"{self.record}-other") if other else self.record
        texts = path.read_text().splitlines(keepends=True) if path.exists() else []
        lines = [json.loads(text) for text in texts if text.endswith("\n")]
        return [line for line in lines if "loss" in line]

    def end(self, other: bool = False) -> str:
        """Returns the SHA-256 of the model's variables in a process that finished."""
        return json.loads(
            Path(f"{self.record}{'-other' if other else ''}").read_text().splitlines()[-1]
        )["end"]

    def as_after(self, step: int, folder: Path) -> "Run":
        """Returns a copy of the run that has only the checkpoint after a number of steps.

        It has none for 0 steps.
        """
        copy = Run(folder, **self.changes)
        copy.root.mkdir(parents=True)
        shutil.copy(self.root / "config.json", copy.root / "config.json")
        paths = {self.count(path): path for path in list_checkpoints(self.root / "checkpoints")}
        if step:
            shutil.copytree(paths[step], copy.root / "checkpoints" / paths[step].name)
        return copy

    def newest(self) -> int:
        """Returns the number of steps of the newest checkpoint, 0 if there is none."""
        return max(map(self.count, list_checkpoints(self.root / "checkpoints")), default=0)

    @staticmethod
    def count(path: Path) -> int:
        """Returns the number of steps of a checkpoint."""
        epoch, step = position_of(path)
        return epoch * STEPS + step

    def digest(self, steps: list[dict] | None = None) -> str:
        """Returns the SHA-256 of every variable, the position and the record of steps.

        Args:
            steps: of the record; by default the last line of each step.
        """
        checkpoint, damaged = read_newest(self.root / "checkpoints")
        assert not damaged
        hashed = hashlib.sha256(f"{checkpoint.epoch} {checkpoint.step}".encode())
        for name, array in sorted(checkpoint.arrays.items()):
            hashed.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        last = {line["step"]: line for line in (self.steps() if steps is None else steps)}
        hashed.update(json.dumps([last[step] for step in sorted(last)]).encode())
        return hashed.hexdigest()

    def without_contradiction(self) -> bool:
        """Returns whether each step that was repeated, its result being lost, gave the same."""
        first: dict[int, dict] = {}
        return all(first.setdefault(line["step"], line) == line for line in self.steps())


@contextlib.contextmanager
def no_process_left() -> Iterator[None]:
    """Fails the test if a process that was started inside doesn't end."""

    def children() -> set[int]:
        return {process.pid for process in psutil.Process().children(recursive=True)}

    before = children()
    yield
    wait_until(lambda: not children() - before, lambda: children() - before, pause=0.1)


def stopped_by_signal(
    processes: Processes, run: Run, moment: str, step: int, name: str, **job
) -> tuple[int, int]:
    """Returns the steps completed and the steps saved by a process that a signal ended."""
    slow = [{"moment": "data", "step": 0, "kind": "slow"}] if moment == "data" else []
    process = processes.start(
        run, faults=[*slow, {"moment": moment, "step": step, "kind": name}], **job
    )
    assert process.wait() == 128 + getattr(signal, name), (moment, process.output[-3000:])
    return max((line["step"] for line in run.steps()), default=0), run.newest()


def check_signal(
    processes: Processes, whole: Run, run: Run, moment: str, step: int, name: str
) -> None:
    """A signal at a moment loses no step, and the resumed run ends on the same bits."""
    completed, saved = stopped_by_signal(processes, run, moment, step, name)
    assert completed == saved, (moment, completed, saved)
    processes.finish(run)
    each_once = list(range(1, ALL_STEPS + 1))
    assert [line["step"] for line in run.steps()] == each_once, moment
    assert run.digest() == whole.digest(), moment
