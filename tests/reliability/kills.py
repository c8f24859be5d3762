"""`python -m tests.reliability.kills MODE FOLDER [COUNT]`: kills processes inside saves.

`every` kills at every file operation of two saves, `random` at random moments, and `power` simulates
power cuts. Prints a JSON object with the number of kills and what is wrong after them.

`--without NAME` removes a protection first: `rename` writes a checkpoint under its final name,
`hiding` removes one under that name, `file-sync` and `folder-sync` don't wait for the disk.
"""

import argparse
import json
import os
import random
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from byol_tf.runs import checkpoint_format, checkpoint_writer, checkpoints
from byol_tf.runs.checkpoints import list_checkpoints, position_of, recover
from tests.reliability.operations import Operation, Operations, kill_at
from tests.reliability.saves import (
    copies,
    differs_from_saved,
    folder_with_left_overs,
    logged_messages,
    run_in_fork,
    save,
    valid_positions,
)

_BEFORE, _DAMAGED, _SAVES = (4, 0), (4, 9), [(5, 0), (5, 3)]


Send = Callable[[bytes], object]
"""Sends bytes from a forked child to its parent (see `run_in_fork`)."""


def work(folder: Path, send: Send) -> None:
    """Resumes and saves twice, as a run's process does; sends a byte before each save."""
    recover(folder)
    save(folder, _SAVES, lambda _: send(b"."))


def defects(
    folder: Path, before: tuple[int, int], now: tuple[int, int], next_one: tuple[int, int]
) -> list[str]:
    """Checks the folder of a process that died, and lists what is wrong.

    Args:
        folder: of its checkpoints.
        before: position of the last save but one that the process started.
        now: position of the last.
        next_one: position of a checkpoint that is written then.
    """
    wrong = []
    if len(valid_positions(folder)) < 2:
        wrong.append(f"{len(valid_positions(folder))} verified")
    seen = {position_of(path) for path in list_checkpoints(folder)} - {_DAMAGED}
    wrong += [
        f"half a checkpoint at {position}" for position in seen - set(valid_positions(folder))
    ]
    with logged_messages() as messages:
        checkpoint = recover(folder)
    if (checkpoint.epoch, checkpoint.step) not in (before, now) or differs_from_saved(checkpoint):
        wrong.append(f"resumes from {checkpoint.epoch, checkpoint.step}")
    wrong += [f"logged: {line}" for line in messages if "epoch-0004-step-000009" not in line]
    wrong += [f"left over: {path.name}" for path in folder.glob(".*")]
    if save(folder, [next_one]).failed or next_one not in valid_positions(folder):
        wrong.append("can't save any more")
    return wrong


def _before_and_now(started: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the positions of the last save but one and the last, of `started` saves."""
    return [_BEFORE, *_SAVES][max(started - 1, 0)], [_BEFORE, *_SAVES][started]


def every(folder: Path) -> dict:
    """Kills before each file operation, and in the middle of each write, until a defect shows."""
    base, wrong, killed = folder_with_left_overs(folder / "base"), [], 0
    fresh_copies, done = copies(base, folder / "copy"), []
    copy = next(fresh_copies)
    with Operations(copy, lambda _, operation: done.append(operation.name)):
        work(copy, lambda _: None)
    for number, half in [
        (number, half)
        for number, name in enumerate(done)
        for half in ((False, True) if name == "write" else (False,))
    ]:
        copy = next(fresh_copies)

        def stopped(send, copy=copy, number=number, half=half):
            with Operations(copy, kill_at(number, after_half=half)):
                work(copy, send)

        status, sent = run_in_fork(stopped)
        if not os.WIFSIGNALED(status):
            wrong.append(f"operation {number}: not killed")
        before, now = _before_and_now(len(sent))
        wrong += [
            f"operation {number} ({done[number]}{', half' * half}): {text}"
            for text in defects(copy, before, now, (6, 0))
        ]
        killed += 1
        if wrong:
            break
    return {"times": killed, "operations": Counter(done), "wrong": wrong}


def at_random(folder: Path, count: int) -> dict:
    """Kills processes after random times, each of which resumes from the one before."""
    base, wrong, draw, epoch = folder_with_left_overs(folder / "base"), [], random.Random(), 4
    for number in range(count):
        first = epoch + 1

        def endless(send, first=first):
            recover(base)
            save(
                base,
                ((epoch, 0) for epoch in range(first, first + 10_000)),
                lambda position: send(b"."),
            )

        pause = draw.uniform(0, 0.05)
        _, sent = run_in_fork(endless, kill_after=lambda pause=pause: time.sleep(pause))
        last = epoch + len(sent)
        text = defects(base, (max(last - 1, epoch), 0), (last, 0), (last + 1, 0))
        wrong += [f"kill {number} after {pause:.4f} s: {line}" for line in text]
        epoch = last + 1
    return {"times": count, "saves": epoch, "wrong": wrong}


def power_cuts(folder: Path) -> dict:
    """Cuts the power after each file operation, on a disk that keeps as little as it may.

    What was written and not synced is lost: the content of files and the names added to folders
    (`names`), or only the content (`contents`). Removals have happened in both cases.
    """
    base, wrong = folder_with_left_overs(folder / "base"), []
    made, done = folder / "made", []
    shutil.copytree(base, made)
    with Operations(made, lambda _, operation: done.append(operation)):
        work(made, lambda _: done.append(None))  # marks the start of a save
    cuts, fresh_copies = 0, copies(base, folder / "copy")
    for lost in ("names", "contents"):
        for number in range(len(done)):
            if done[number] is None:
                continue
            copy = next(fresh_copies)
            _after_power_cut(done[:number], made, copy, lost)
            before, now = _before_and_now(done[:number].count(None))
            wrong += [
                f"operation {number}, {lost} lost: {text}"
                for text in defects(copy, before, now, (6, 0))
            ]
            cuts += 1
    return {"times": cuts, "wrong": wrong}


def _after_power_cut(done: list[Operation | None], made: Path, copy: Path, lost: str) -> None:
    """Applies to `copy`, of the folder before, what a disk may keep of operations in `made`."""
    written: dict[str, bytes] = {}  # path -> content that a process would read
    for number, operation in enumerate(done):
        if operation is None:
            continue
        later = [
            other for other in done[number + 1 :] if other is not None and other.name == "fsync"
        ]
        path = Path(operation.path.replace(str(made), str(copy)))
        named = lost == "contents" or any(
            other.path == str(Path(operation.target or operation.path).parent) for other in later
        )
        if (
            operation.name == "mkdir"
            and path.parent.is_dir()
            and (named or path.name.startswith("."))
        ):
            path.mkdir(exist_ok=True)  # nothing looks for a hidden one
        elif operation.name == "write":
            written[operation.path] = written.get(operation.path, b"") + operation.data
            if path.parent.is_dir():
                path.write_bytes(
                    written[operation.path]
                    if any(other.path == operation.path for other in later)
                    else b""
                )
        elif operation.name == "rename" and path.exists():
            target = Path(operation.target.replace(str(made), str(copy)))
            if named or target.name.startswith("."):
                path.rename(target)
        elif operation.name == "unlink":
            path.unlink(missing_ok=True)
        elif operation.name == "rmdir" and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def remove_protection(protection: str) -> None:
    """Replaces a protection by what a simpler program would do."""
    if protection == "rename":

        def in_place(folder, epoch, step, arrays, state, *_):
            path = folder / (f"epoch-{epoch:04d}-step-{step:06d}" if step else f"epoch-{epoch:04d}")
            path.mkdir(parents=True)
            checkpoint_format.write_files(path, epoch, step, arrays, state)
            return path

        checkpoint_writer.write_checkpoint = in_place
    elif protection == "hiding":
        checkpoints.temporary_path = lambda path: path
    else:
        checkpoint_format.os = _Unsynced(
            stat.S_ISREG if protection == "file-sync" else stat.S_ISDIR
        )


class _Unsynced:
    """The module `os`, except that files or folders aren't synced."""

    def __init__(self, is_unsynced: Callable[[int], bool]):
        self.is_unsynced = is_unsynced

    def __getattr__(self, name):
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        if not self.is_unsynced(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.kills", description=__doc__)
    parser.add_argument("mode", choices=("every", "random", "power"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int, nargs="?", default=50)
    parser.add_argument("--without", choices=("rename", "hiding", "file-sync", "folder-sync"))
    options = parser.parse_args()
    if options.without:
        remove_protection(options.without)
    result = {"every": every, "power": power_cuts}.get(
        options.mode, lambda folder: at_random(folder, options.count)
    )(options.folder)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
