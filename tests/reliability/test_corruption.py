"""A checkpoint that is damaged is found before any of it is used, and the one before it goes on; a
whole one is never called damaged."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from byol_tf.runs import checkpoint_format as checkpoint_files
from byol_tf.runs.checkpoints import (
    list_checkpoints,
    position_of,
    read_newest,
    recover,
    write_checkpoint,
)
from tests.helpers.waiting import wait_until
from tests.reliability import runs
from tests.reliability.saves import arrays_at, quick_folder, state_at, unlike

FILES = ("arrays.npz", "state.json", "manifest.json")


@pytest.fixture
def quick():
    with quick_folder() as folder:
        yield folder


def three(folder: Path) -> Path:
    """A folder of three checkpoints, with somewhat larger arrays, so that most of a file is no
    header."""
    for epoch in (1, 2, 3):
        write_checkpoint(
            folder,
            epoch,
            0,
            arrays_at(epoch) | {"filler": np.full((40, 40), epoch, np.float32)},
            state_at(epoch),
        )
    return folder


def flip(draw: random.Random, newest: Path, before: Path, name: str) -> str:
    content = bytearray((newest / name).read_bytes())
    bit = draw.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    (newest / name).write_bytes(content)
    return f"bit {bit} of {name} flipped"


def cut(draw: random.Random, newest: Path, before: Path, name: str) -> str:
    content = (newest / name).read_bytes()
    left = draw.randrange(len(content))
    (newest / name).write_bytes(content[:left])
    return f"{name} cut to {left} of {len(content)} bytes"


def zero(draw: random.Random, newest: Path, before: Path, name: str) -> str:
    """As a file system leaves them: blocks that were never written."""
    content = bytearray((newest / name).read_bytes())
    block = min(512, len(content))
    places = [
        start
        for start in range(0, len(content) - block + 1, 64)
        if any(content[start : start + block])
    ]
    start = draw.choice(places)
    content[start : start + block] = bytes(block)
    (newest / name).write_bytes(content)
    return f"{block} bytes of {name} from {start} are zero"


def lengthen(draw: random.Random, newest: Path, before: Path, name: str) -> str:
    more = draw.randrange(1, 600)
    with (newest / name).open("ab") as file:
        file.write(draw.randbytes(more))
    return f"{more} bytes after the end of {name}"


def remove(draw: random.Random, newest: Path, before: Path, name: str) -> str:
    (newest / name).unlink()
    return f"{name} is missing"


def older(draw: random.Random, newest: Path, before: Path, name: str) -> str:
    shutil.copy(before / name, newest / name)
    return f"{name} is that of the checkpoint before"


def swap(draw: random.Random, newest: Path, before: Path, name: str) -> str:
    other = draw.choice([other for other in FILES if other != name])
    (newest / name).rename(newest / "x")
    (newest / other).rename(newest / name)
    (newest / "x").rename(newest / other)
    return f"{name} and {other} swapped"


def whole_older(draw: random.Random, newest: Path, before: Path, name: str) -> str:
    for each in FILES:
        shutil.copy(before / each, newest / each)
    return "all files are those of the checkpoint before"


DAMAGES = [flip, flip, flip, flip, cut, cut, zero, lengthen, remove, older, swap, whole_older]


def corrupt(folder: Path, times: int) -> list[str]:
    """Damages the newest checkpoint again and again, a whole folder each time; what shouldn't have
    been, in words."""
    base, draw, wrong = three(folder / "base"), random.Random(1), []
    for number in range(times):
        place = folder / "copy"
        shutil.copytree(base, place)
        before, newest = list_checkpoints(place)[-2:]
        what = DAMAGES[number % len(DAMAGES)](
            draw, newest, before, FILES[number // len(DAMAGES) % len(FILES)]
        )
        files = {path.name: path.read_bytes() for path in newest.iterdir()}
        said = []
        checkpoint = recover(place, said.append)
        aside = place / "damaged" / newest.name
        if checkpoint is None or (checkpoint.epoch, checkpoint.step) != position_of(before):
            wrong.append(f"{what}: not found")
        elif unlike(
            checkpoint._replace(
                arrays={
                    name: array for name, array in checkpoint.arrays.items() if name != "filler"
                }
            )
        ):
            wrong.append(f"{what}: another one than was saved")
        elif len(said) != 1 or str(newest) not in said[0]:
            wrong.append(f"{what}: not named")
        elif (
            not aside.is_dir()
            or {path.name: path.read_bytes() for path in aside.iterdir()} != files
        ):
            wrong.append(f"{what}: not set aside as it was")
        elif list_checkpoints(place) != list_checkpoints(place)[:2] or read_newest(place)[1]:
            wrong.append(f"{what}: still counts")
        shutil.rmtree(place)
    return wrong


def test_every_corruption_is_found_named_and_set_aside(quick, report):
    assert corrupt(quick, 300) == []
    what = (
        "corruptions of the newest checkpoint (bit flips over all files, cuts, zero blocks, bytes "
        "added, missing, older and swapped files, "
        "an older checkpoint under its name): found before any array was given out, named, set "
        "aside, the one before read"
    )
    report(4, what, 300)


@pytest.mark.long
def test_every_corruption_is_found_for_a_release(quick, report):
    assert corrupt(quick, 10_000) == []
    report(4, "the same corruptions, as many as for a release", 10_000)


def test_no_whole_one_is_called_damaged(quick, report):
    draw = np.random.default_rng(0)
    for number in range(300):
        shapes = [
            tuple(draw.integers(0, 5, size=draw.integers(0, 4))) for _ in range(draw.integers(1, 9))
        ]
        types = draw.choice(["f2", "f4", "f8", "i8"], size=len(shapes))
        drawn = [
            draw.normal(size=shape).astype(kind) for shape, kind in zip(shapes, types, strict=True)
        ]
        arrays = {f"part/{index:04d}/{'é' * index}": array for index, array in enumerate(drawn)}
        state = {
            "rows": [{"epoch": 0, "loss": float(draw.normal() * 10.0 ** draw.integers(-300, 300))}],
            "text": "é\u2028\x00",
        }
        folder = quick / str(number)
        write_checkpoint(folder, number, number % 7, arrays, state)
        checkpoint, damaged = read_newest(folder)
        assert damaged == []
        assert checkpoint.state == state
        assert set(checkpoint.arrays) == set(arrays)
        assert all(
            checkpoint.arrays[name].tobytes() == np.asarray(array).tobytes()
            for name, array in arrays.items()
        )
    report(4, "whole checkpoints of many shapes, types and names: false alarms, 0", 300)


def test_without_hashes_damage_is_loaded(quick, monkeypatch):
    """So the tests here can fail: the zip's own checksums and NumPy's checks don't find all of
    it."""

    def trusting(folder, epoch, step):
        with (
            (folder / "arrays.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            return {name.replace("|", "/"): arrays[name] for name in arrays.files}, json.loads(
                (folder / "state.json").read_bytes()
            )

    def lenient(folder, epoch, step):
        try:
            return trusting(folder, epoch, step)
        except Exception as error:
            raise checkpoint_files.DamagedCheckpoint(str(error)) from error

    monkeypatch.setattr(checkpoint_files, "read_files", lenient)
    wrong = corrupt(quick, 120)
    assert sum("not found" in line for line in wrong) > 10
    assert any("flipped" in line for line in wrong)


def test_without_the_position_an_older_one_under_a_newer_name_is_loaded(quick, monkeypatch):
    real = checkpoint_files._facts
    monkeypatch.setattr(
        checkpoint_files,
        "_facts",
        lambda manifest: {
            name: fact for name, fact in real(manifest).items() if name not in ("epoch", "step")
        },
    )
    assert any(
        "all files are those of the checkpoint before" in line
        for line in corrupt(quick, len(DAMAGES))
    )


@pytest.mark.long
def test_a_run_falls_back_and_ends_on_the_same_hash(tmp_path, report):
    """The newest checkpoints of a killed run are damaged, each in another way."""
    runs.ended(runs.start(tmp_path / "undisturbed"))
    run, draw = tmp_path / "run", random.Random(2)
    process = runs.start(run)

    def has_four_checkpoints() -> bool:
        assert process.poll() is None, process.stderr.read()
        return len(list_checkpoints(run / "checkpoints")) >= 4

    wait_until(has_four_checkpoints, pause=0.005)
    process.kill()
    process.communicate()
    first, *others = list_checkpoints(run / "checkpoints")
    damages = {
        path: damage(draw, path, first, "arrays.npz")
        for path, damage in zip(others, (flip, cut, whole_older), strict=False)
    }
    printed, _ = runs.ended(runs.start(run))
    for path in damages:
        assert f"damaged checkpoint, not used: {path}: " in printed
        assert (run / "checkpoints" / "damaged" / path.name).is_dir()
    assert f"resuming after epoch {position_of(first)[0]} of {runs.EPOCHS}" in printed
    assert runs.digest(run) == runs.digest(tmp_path / "undisturbed")
    report(
        4,
        "by the command: a killed run's newest three damaged; each named and set aside, the fourth "
        "ends on the same hash",
        len(damages),
    )
