"""`python -m tests.reliability.kills every FOLDER`, `... random FOLDER COUNT`, `... power FOLDER`:
what kills at every operation of two saves, kills at any moment, and power cuts leave. Prints a JSON
object with the times and what shouldn't have been; needs no TensorFlow.

`--without NAME` takes a protection out first: `rename` writes a checkpoint where it is looked for,
`hiding` removes one there, `file-sync` and `folder-sync` don't wait for the disk.
"""

import argparse
import json
import os
import random
import shutil
import stat
import time
from collections import Counter
from pathlib import Path

from byol_tf.runs import checkpoint_format as checkpoint_files
from byol_tf.runs import checkpoint_writer, checkpoints
from byol_tf.runs.checkpoints import list_checkpoints, position_of
from tests.reliability.operations import Operation, Operations, kill_at
from tests.reliability.saves import begun, copies, forked, go_on, save, unlike, whole

_BEFORE, _DAMAGED, _SAVES = (4, 0), (4, 9), [(5, 0), (5, 3)]


def work(folder: Path, tell) -> None:
    """What a run's process does from its start: clears up, and saves twice."""
    go_on(folder)
    save(folder, _SAVES, lambda _: tell(b"."))


def wrongs(
    folder: Path, before: tuple[int, int], now: tuple[int, int], next_one: tuple[int, int]
) -> list[str]:
    """What shouldn't be in the folder of a process that died.

    Args:
        folder: its checkpoints.
        before: the position of the save before the last that it began.
        now: of the last.
        next_one: of one that is written then.
    """
    wrong, said = [], []
    if len(whole(folder)) < 2:
        wrong.append(f"{len(whole(folder))} verified")
    seen = {position_of(path) for path in list_checkpoints(folder)} - {_DAMAGED}
    wrong += [f"half a checkpoint at {position}" for position in seen - set(whole(folder))]
    checkpoint = go_on(folder, said.append)
    if (checkpoint.epoch, checkpoint.step) not in (before, now) or unlike(checkpoint):
        wrong.append(f"goes on from {checkpoint.epoch, checkpoint.step}")
    wrong += [f"said: {line}" for line in said if "epoch-0004-step-000009" not in line]
    wrong += [f"left over: {path.name}" for path in folder.glob(".*")]
    if save(folder, [next_one]).failed or next_one not in whole(folder):
        wrong.append("can't save any more")
    return wrong


def _before_and_now(began: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The positions of the last save but one and the last, of a process that began so many."""
    return [_BEFORE, *_SAVES][max(began - 1, 0)], [_BEFORE, *_SAVES][began]


def every(folder: Path) -> dict:
    """Kills before each operation, and in the middle of each write, until something is wrong."""
    base, wrong, killed = begun(folder / "base"), [], 0
    copy, done = copies(base, folder / "copy"), []
    place = next(copy)
    with Operations(place, lambda _, operation: done.append(operation.name)):
        work(place, lambda _: None)
    for number, half in [
        (number, half)
        for number, name in enumerate(done)
        for half in ((False, True) if name == "write" else (False,))
    ]:
        place = next(copy)

        def stopped(tell, place=place, number=number, half=half):
            with Operations(place, kill_at(number, after_half=half)):
                work(place, tell)

        status, told = forked(stopped)
        if not os.WIFSIGNALED(status):
            wrong.append(f"operation {number}: not killed")
        before, now = _before_and_now(len(told))
        wrong += [
            f"operation {number} ({done[number]}{', half' * half}): {text}"
            for text in wrongs(place, before, now, (6, 0))
        ]
        killed += 1
        if wrong:
            break
    return {"times": killed, "operations": Counter(done), "wrong": wrong}


def at_random(folder: Path, count: int) -> dict:
    """Kills one process after the other, each after a random time; they go on from one another."""
    base, wrong, draw, epoch = begun(folder / "base"), [], random.Random(), 4
    for number in range(count):
        first = epoch + 1

        def endless(tell, first=first):
            go_on(base)
            save(
                base,
                ((epoch, 0) for epoch in range(first, first + 10_000)),
                lambda position: tell(b"."),
            )

        pause = draw.uniform(0, 0.05)
        _, told = forked(endless, kill_after=lambda pause=pause: time.sleep(pause))
        last = epoch + len(told)
        text = wrongs(base, (max(last - 1, epoch), 0), (last, 0), (last + 1, 0))
        wrong += [f"kill {number} after {pause:.4f} s: {line}" for line in text]
        epoch = last + 1
    return {"times": count, "saves": epoch, "wrong": wrong}


def power_cuts(folder: Path) -> dict:
    """Cuts the power after each operation, on a disk that keeps as little as it may.

    What was written and not synced is gone: of a file its content, of a folder the names that were
    added (`names`); or the names are there and the contents aren't (`contents`). Removals have
    happened in both.
    """
    base, wrong = begun(folder / "base"), []
    made, done = folder / "made", []
    shutil.copytree(base, made)
    with Operations(made, lambda _, operation: done.append(operation)):
        work(made, lambda _: done.append(None))  # where a save begins
    cuts, copy = 0, copies(base, folder / "copy")
    for lost in ("names", "contents"):
        for number in range(len(done)):
            if done[number] is None:
                continue
            place = next(copy)
            _after_power_cut(done[:number], made, place, lost)
            before, now = _before_and_now(done[:number].count(None))
            wrong += [
                f"operation {number}, {lost} lost: {text}"
                for text in wrongs(place, before, now, (6, 0))
            ]
            cuts += 1
    return {"times": cuts, "wrong": wrong}


def _after_power_cut(done: list[Operation | None], made: Path, place: Path, lost: str) -> None:
    """Makes in `place`, a copy of what was there before, what a disk may keep of operations in
    `made`."""
    written: dict[str, bytes] = {}  # what a process would read
    for number, operation in enumerate(done):
        if operation is None:
            continue
        later = [
            other for other in done[number + 1 :] if other is not None and other.name == "fsync"
        ]
        path = Path(operation.path.replace(str(made), str(place)))
        named = lost == "contents" or any(
            other.path == str(Path(operation.target or operation.path).parent) for other in later
        )
        if (
            operation.name == "mkdir"
            and path.parent.is_dir()
            and (named or path.name.startswith("."))
        ):
            path.mkdir(exist_ok=True)  # a hidden one is no name that anybody looks for
        elif operation.name == "write":
            written[operation.path] = written.get(operation.path, b"") + operation.data
            if path.parent.is_dir():
                path.write_bytes(
                    written[operation.path]
                    if any(other.path == operation.path for other in later)
                    else b""
                )
        elif operation.name == "rename" and path.exists():
            target = Path(operation.target.replace(str(made), str(place)))
            if named or target.name.startswith("."):
                path.rename(target)
        elif operation.name == "unlink":
            path.unlink(missing_ok=True)
        elif operation.name == "rmdir" and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def take_out(protection: str) -> None:
    """Replaces one protection by what a simpler program would do."""
    if protection == "rename":

        def in_place(folder, epoch, step, arrays, state):
            path = folder / (f"epoch-{epoch:04d}-step-{step:06d}" if step else f"epoch-{epoch:04d}")
            path.mkdir(parents=True)
            checkpoint_files.write_files(path, epoch, step, arrays, state)
            return path

        checkpoint_writer.write_checkpoint = in_place
    elif protection == "hiding":
        real = checkpoints._hidden
        checkpoints._hidden = lambda path: real(path) if not path.exists() else path
    else:
        checkpoint_files.os = _Unsynced(stat.S_ISREG if protection == "file-sync" else stat.S_ISDIR)


class _Unsynced:
    """The module `os`, but that some kind of file isn't synced."""

    def __init__(self, kind):
        self.kind = kind

    def __getattr__(self, name):
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        if not self.kind(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.kills", description=__doc__)
    parser.add_argument("what", choices=("every", "random", "power"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int, nargs="?", default=50)
    parser.add_argument("--without", choices=("rename", "hiding", "file-sync", "folder-sync"))
    options = parser.parse_args()
    if options.without:
        take_out(options.without)
    result = {"every": every, "power": power_cuts}.get(
        options.what, lambda folder: at_random(folder, options.count)
    )(options.folder)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
