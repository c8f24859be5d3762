"""A process that saves as a run does, but learns nothing: what a checkpoint holds follows from its
position. Needs no TensorFlow."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.runs.checkpoints import (
    LoadedCheckpoint,
    list_checkpoints,
    position_of,
    recover,
    verify,
    write_checkpoint,
)

KEEP = 2


@contextlib.contextmanager
def quick_folder() -> Iterator[Path]:
    """A temporary folder in memory where there is such a place: the tests here see no difference,
    and a disk takes its time to sync."""
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.path.isdir("/dev/shm") else None
    ) as folder:
        yield Path(folder)


def arrays_at(epoch: int, step: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng((epoch, step))
    return {
        "online/encoder/0000/kernel": draw.normal(size=(3, 3, 2)).astype(np.float32),
        "optimizer/0000/iterations": np.int64(100 * epoch + step),
    }


def state_at(epoch: int) -> dict:
    """The rows have their best probe at epoch 1."""
    return {
        "rows": [
            {"epoch": row, "probe_accuracy": 0.9 if row == 1 else 0.5} for row in range(epoch + 1)
        ],
        "images": "f1n9e2",
    }


def begun(folder: Path, epochs: int = 4) -> Path:
    """A folder of some epochs' checkpoints, with what a killed process and a bad disk may leave: a
    half one, and a damaged newest."""
    save(folder, [(epoch, 0) for epoch in range(1, epochs + 1)])
    half = folder / f".epoch-{epochs + 1:04d}.part"
    half.mkdir()
    (half / "arrays.npz").write_bytes(b"half of it")
    damaged = write_checkpoint(folder, epochs, 9, arrays_at(epochs, 9), state_at(epochs))
    (damaged / "state.json").write_bytes(b"{}")
    (folder / ".epoch-0099.part").mkdir()
    return folder


def save(
    folder: Path, positions, before_each: Callable[[tuple[int, int]], object] = lambda _: None
) -> CheckpointWriter:
    """Writes checkpoints one after the other, and returns their writer."""
    writer = CheckpointWriter(folder, KEEP, lambda line: None)
    for epoch, step in positions:
        before_each((epoch, step))
        writer.write(epoch, step, arrays_at(epoch, step), state_at(epoch))
        writer.wait()
    return writer


def go_on(folder: Path, said: Callable[[str], None] = lambda line: None) -> LoadedCheckpoint | None:
    """What a run begins with."""
    return recover(folder, said)


def whole(folder: Path) -> list[tuple[int, int]]:
    """The positions of all checkpoints that can be verified."""
    return [position_of(path) for path in list_checkpoints(folder) if is_whole(path)]


def is_whole(path: Path) -> bool:
    try:
        verify(path)
    except (OSError, ValueError):
        return False
    return True


def unlike(checkpoint: LoadedCheckpoint) -> bool:
    """Whether it holds anything but what was saved at its position."""
    expected = arrays_at(checkpoint.epoch, checkpoint.step)
    same = set(checkpoint.arrays) == set(expected) and all(
        (checkpoint.arrays[name] == expected[name]).all() for name in expected
    )
    return not same or checkpoint.state != state_at(checkpoint.epoch)


def forked(
    work: Callable[[Callable[[bytes], object]], object],
    kill_after: Callable[[], object] | None = None,
) -> tuple[int, bytes]:
    """(wait status, what it told) of a child that does some work.

    Args:
        work: called with a function that tells the parent something.
        kill_after: waits; then the child is killed. None lets it end.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
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
    told = b""
    while part := os.read(reader, 4096):
        told += part
    os.close(reader)
    return os.waitpid(child, 0)[1], told


def copies(folder: Path, into: Path) -> Iterator[Path]:
    """Fresh copies of a folder, one at a time."""
    while True:
        shutil.rmtree(into, ignore_errors=True)
        shutil.copytree(folder, into)
        yield into
