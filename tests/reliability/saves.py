"""Checkpoints saved as a run saves them, without training: the content follows from the position."""

import contextlib
import gc
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.runs.checkpoints import (
    LoadedCheckpoint,
    list_checkpoints,
    position_of,
    verify,
    write_checkpoint,
)

KEEP = 2


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """Makes a temporary folder, in memory where possible: syncing a disk takes time."""
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.path.isdir("/dev/shm") else None
    ) as folder:
        yield Path(folder)


def arrays_at(epoch: int, step: int = 0) -> dict[str, np.ndarray]:
    """Returns the arrays of the checkpoint at a position."""
    draw = np.random.default_rng((epoch, step))
    return {
        "online/encoder/0000/kernel": draw.normal(size=(3, 3, 2)).astype(np.float32),
        "optimizer/0000/iterations": np.int64(100 * epoch + step),
    }


def state_at(epoch: int) -> dict:
    """Returns the state of the checkpoint after an epoch; the best probe is that of epoch 1."""
    return {
        "rows": [
            {"epoch": row, "probe_accuracy": 0.9 if row == 1 else 0.5} for row in range(epoch + 1)
        ],
        "images": "f1n9e2",
    }


def folder_with_left_overs(folder: Path, epochs: int = 4) -> Path:
    """Makes a folder of checkpoints as a killed process and a bad disk may leave it.

    It has a valid checkpoint for each epoch, a damaged newest one, and two temporary folders.
    """
    save(folder, [(epoch, 0) for epoch in range(1, epochs + 1)])
    partial = folder / f".epoch-{epochs + 1:04d}.part"
    partial.mkdir()
    (partial / "arrays.npz").write_bytes(b"half of it")
    damaged = write_checkpoint(folder, epochs, 9, arrays_at(epochs, 9), state_at(epochs))
    (damaged / "state.json").write_bytes(b"{}")
    (folder / ".epoch-0099.part").mkdir()
    return folder


def save(
    folder: Path,
    positions: Iterable[tuple[int, int]],
    before_each: Callable[[tuple[int, int]], object] = lambda _: None,
) -> CheckpointWriter:
    """Writes a checkpoint at each position; returns the writer."""
    writer = CheckpointWriter(folder, KEEP)
    for epoch, step in positions:
        before_each((epoch, step))
        writer.write(epoch, step, arrays_at(epoch, step), state_at(epoch))
        writer.wait()
    return writer


@contextlib.contextmanager
def logged_messages() -> Iterator[list[str]]:
    """Collects what byol_tf logs inside the context."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    messages: list[str] = []
    handler, logger = Collector(), logging.getLogger("byol_tf")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def valid_positions(folder: Path) -> list[tuple[int, int]]:
    """Returns the positions of all valid checkpoints."""
    return [position_of(path) for path in list_checkpoints(folder) if is_valid(path)]


def is_valid(path: Path) -> bool:
    try:
        verify(path)
    except (OSError, ValueError):
        return False
    return True


def differs_from_saved(checkpoint: LoadedCheckpoint) -> bool:
    """Whether a checkpoint has another content than was saved at its position."""
    expected = arrays_at(checkpoint.epoch, checkpoint.step)
    same = set(checkpoint.arrays) == set(expected) and all(
        (checkpoint.arrays[name] == expected[name]).all() for name in expected
    )
    return not same or checkpoint.state != state_at(checkpoint.epoch)


def run_in_fork(
    work: Callable[[Callable[[bytes], object]], object],
    kill_after: Callable[[], object] | None = None,
) -> tuple[int, bytes]:
    """Runs some work in a forked child.

    Args:
        work: called in the child, with a function that sends bytes to the parent.
        kill_after: called in the parent; when it returns, the child is killed. None lets the child
            end by itself.

    Returns:
        (wait status of the child, bytes that it sent).
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        forget_tensorflow()
        status = 1
        try:
            os.close(reader)
            work(lambda text: os.write(writer, text))
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writer)
    if kill_after is not None:
        kill_after()
        os.kill(child, signal.SIGKILL)
    received = b""
    while chunk := os.read(reader, 4096):
        received += chunk
    os.close(reader)
    return os.waitpid(child, 0)[1], received


def forget_tensorflow() -> None:
    """Keeps the garbage collector from a forked child's copies of TensorFlow's objects.

    Their threads weren't copied: collecting one has ended a child by SIGSEGV.
    """
    gc.freeze()


def copies(folder: Path, into: Path) -> Iterator[Path]:
    """Yields fresh copies of a folder, one at a time at the same path."""
    while True:
        shutil.rmtree(into, ignore_errors=True)
        shutil.copytree(folder, into)
        yield into
