"""Real processes that run the real command on a tiny experiment, and what they leave behind."""

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
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from byol_tf.runs.checkpoints import list_checkpoints, position_of, read_newest

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
"""24 steps in 3 epochs of 8; each epoch leaves out another 3 images that fill no batch."""


@dataclass
class Process:
    """One that `Processes` has begun; `output` is what it printed."""

    number: int
    output_file: Path
    pid: int | None = None
    code: int | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float = 200.0) -> int:
        """Its exit code, negative for a signal; fails the test if it takes longer."""
        if not self.ended.wait(seconds):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            pytest.fail(f"still there after {seconds:g} s: {self.output[-3000:]}")
        return self.code

    def send(self, name: str) -> None:
        self.begun.wait(20)
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.kill(self.pid, getattr(signal, name))

    @property
    def output(self) -> str:
        return self.output_file.read_text()


class Processes:
    """Begins processes, each forked from one that has imported TensorFlow and not used it (see
    `child.py`)."""

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
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()
        return self

    def __exit__(self, *_) -> None:
        for process in self._all.values():
            if process.pid is not None and process.code is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        self._server.stdin.close()
        self._server.wait(60)
        self._hearing.join()
        self._server.stdout.close()

    def start(self, run: "Run", environment: dict[str, str] | None = None, **job) -> Process:
        """Trains in a run's folder; `job`: the keys that `child.py` lists."""
        number = next(self._numbers)
        run.folder.mkdir(parents=True, exist_ok=True)
        process = self._all[number] = Process(number, run.folder / f"output-{number}.txt")
        lines = {
            "number": number,
            "arguments": run.arguments(),
            "output": str(process.output_file),
            "record": str(run.record),
        }
        self._ask(lines | {"environment": environment or {}} | job)
        return process

    def read(self, folder: Path, **how) -> Process:
        """Reads batches: see `reader.py`."""
        number = next(self._numbers)
        process = self._all[number] = Process(number, folder / f"output-{number}.txt")
        self._ask({"number": number, "output": str(process.output_file), "read": how})
        return process

    def _ask(self, job: dict) -> None:
        text = json.dumps(job) + "\n"
        self._server.stdin.write(text.encode())
        self._server.stdin.flush()

    def finish(self, run: "Run", **job) -> Process:
        """One that is to end well."""
        process = self.start(run, **job)
        assert process.wait() == 0, process.output[-3000:]
        return process

    def pair(self, run: "Run", jobs: tuple[dict, dict] = ({}, {})) -> tuple[Process, Process]:
        """Two that are machines of one run; the second one has a record of its own."""
        with (
            socket.socket() as one,
            socket.socket() as other,
        ):  # both at once, or both may get the same port
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            addresses = [f"127.0.0.1:{free.getsockname()[1]}" for free in (one, other)]
        both = []
        for index, job in enumerate(jobs):
            cluster = json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            )
            record = {"record": f"{run.record}{'-other' if index else ''}"}
            both.append(self.start(run, {"TF_CONFIG": cluster}, **record | job))
        return tuple(both)

    def finish_pair(self, run: "Run", jobs: tuple[dict, dict] = ({}, {})) -> None:
        for process in self.pair(run, jobs):
            assert process.wait() == 0, process.output[-3000:]

    def _hear(self) -> None:
        for line in self._server.stdout:
            message = json.loads(line)
            process = self._all[message["number"]]
            process.pid = message.get("pid", process.pid)
            process.begun.set()
            if "code" in message:
                process.code = message["code"]
                process.ended.set()


class Run:
    """A folder in which the tiny experiment is run.

    Args:
        folder: of its config, its outputs and its record; the run folder is `run` in it.
        changes: of CONFIG, dotted keys.
    """

    def __init__(self, folder: Path, **changes):
        self.folder, self.root, self.record, self.changes = (
            folder,
            folder / "run",
            folder / "steps.jsonl",
            changes,
        )

    def arguments(self) -> list[str]:
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
        """The lines of the record, in the order in which they were written, without the time."""
        return [
            {key: value for key, value in line.items() if key != "time"}
            for line in self.lines(other)
        ]

    def lines(self, other: bool = False) -> list[dict]:
        """As `steps`, with the time."""
        path = Path(f"{self.record}-other") if other else self.record
        texts = path.read_text().splitlines(keepends=True) if path.exists() else []
        lines = [json.loads(text) for text in texts if text.endswith("\n")]
        return [line for line in lines if "loss" in line]

    def end(self, other: bool = False) -> str:
        """SHA-256 of the model's variables in a process that came to the end."""
        return json.loads(
            Path(f"{self.record}{'-other' if other else ''}").read_text().splitlines()[-1]
        )["end"]

    def as_after(self, step: int, folder: Path) -> "Run":
        """A copy that holds only the checkpoint after so many steps; none for 0 of them where there
        is none."""
        copy = Run(folder, **self.changes)
        copy.root.mkdir(parents=True)
        shutil.copy(self.root / "config.json", copy.root / "config.json")
        paths = {self.count(path): path for path in list_checkpoints(self.root / "checkpoints")}
        if step:
            shutil.copytree(paths[step], copy.root / "checkpoints" / paths[step].name)
        return copy

    def newest(self) -> int:
        """How many steps the newest checkpoint has."""
        return max(map(self.count, list_checkpoints(self.root / "checkpoints")), default=0)

    @staticmethod
    def count(path: Path) -> int:
        epoch, step = position_of(path)
        return epoch * STEPS + step

    def digest(self, steps: list[dict] | None = None) -> str:
        """SHA-256 over every variable, the data position and the steps, each as it was last made
        (or `steps`)."""
        checkpoint, damaged = read_newest(self.root / "checkpoints")
        assert not damaged
        hashed = hashlib.sha256(f"{checkpoint.epoch} {checkpoint.step}".encode())
        for name, array in sorted(checkpoint.arrays.items()):
            hashed.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        last = {line["step"]: line for line in (self.steps() if steps is None else steps)}
        hashed.update(json.dumps([last[step] for step in sorted(last)]).encode())
        return hashed.hexdigest()

    def without_contradiction(self) -> bool:
        """Whether each step that was made several times, since what it made was lost, was made the
        same each time."""
        first: dict[int, dict] = {}
        return all(first.setdefault(line["step"], line) == line for line in self.steps())


@contextlib.contextmanager
def no_process_left() -> Iterator[None]:
    """Fails if something that was begun inside is still there ten seconds after."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    deadline = time.time() + 10
    while left := [
        process
        for process in psutil.Process().children(recursive=True)
        if process.pid not in before
    ]:
        assert time.time() < deadline, left
        time.sleep(0.1)
