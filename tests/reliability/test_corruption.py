"""A damaged checkpoint is detected before any of it is used, and a valid one is never rejected."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from byol_tf.runs import checkpoint_format
from byol_tf.runs.checkpoints import (
    list_checkpoints,
    position_of,
    read_newest,
    recover,
    write_checkpoint,
)
from tests.helpers.waiting import wait_until
from tests.reliability import runs
from tests.reliability.saves import (
    arrays_at,
    differs_from_saved,
    logged_messages,
    memory_folder,
    state_at,
)

FILES = ("arrays.npz", "state.json", "manifest.json")


@pytest.fixture
def quick():
    with memory_folder() as folder:
        yield folder


def three(folder: Path) -> Path:
    """Makes a folder of three checkpoints, with arrays that are larger than the files' headers."""
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
    """Leaves a block that was never written, as file systems do."""
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


def replace_all(draw: random.Random, newest: Path, before: Path, name: str) -> str:
    for file in FILES:
        shutil.copy(before / file, newest / file)
    return "all files are those of the checkpoint before"


DAMAGES = [flip, flip, flip, flip, cut, cut, zero, lengthen, remove, older, swap, replace_all]


def corrupt(folder: Path, times: int) -> list[str]:
    """Damages the newest checkpoint of a fresh folder many times; lists what goes undetected."""
    base, draw, wrong = three(folder / "base"), random.Random(1), []
    for number in range(times):
        copy = folder / "copy"
        shutil.copytree(base, copy)
        before, newest = list_checkpoints(copy)[-2:]
        damage = DAMAGES[number % len(DAMAGES)](
            draw, newest, before, FILES[number // len(DAMAGES) % len(FILES)]
        )
        files = {path.name: path.read_bytes() for path in newest.iterdir()}
        with logged_messages() as messages:
            checkpoint = recover(copy)
        aside = copy / "damaged" / newest.name
        if checkpoint is None or (checkpoint.epoch, checkpoint.step) != position_of(before):
            wrong.append(f"{damage}: not found")
        elif differs_from_saved(
            checkpoint._replace(
                arrays={
                    name: array for name, array in checkpoint.arrays.items() if name != "filler"
                }
            )
        ):
            wrong.append(f"{damage}: another one than was saved")
        elif len(messages) != 1 or str(newest) not in messages[0]:
            wrong.append(f"{damage}: not named")
        elif (
            not aside.is_dir()
            or {path.name: path.read_bytes() for path in aside.iterdir()} != files
        ):
            wrong.append(f"{damage}: not set aside as it was")
        elif list_checkpoints(copy) != list_checkpoints(copy)[:2] or read_newest(copy)[1]:
            wrong.append(f"{damage}: still counts")
        shutil.rmtree(copy)
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
def test_10000_corruptions_are_found(quick, report):
    assert corrupt(quick, 10_000) == []
    report(4, "the same corruptions, as many as for a release", 10_000)


def test_valid_checkpoints_are_never_rejected(quick, report):
    draw = np.random.default_rng(0)
    for number in range(300):
        shapes = [
            tuple(draw.integers(0, 5, size=draw.integers(0, 4))) for _ in range(draw.integers(1, 9))
        ]
        types = draw.choice(["f2", "f4", "f8", "i8"], size=len(shapes))
        drawn = [
            draw.normal(size=shape).astype(dtype)
            for shape, dtype in zip(shapes, types, strict=True)
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
    """Shows that the tests here can fail: zip's and NumPy's own checks don't find all damages."""

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
            raise checkpoint_format.DamagedCheckpoint(str(error)) from error

    monkeypatch.setattr(checkpoint_format, "read_files", lenient)
    wrong = corrupt(quick, 120)
    assert sum("not found" in line for line in wrong) > 10
    assert any("flipped" in line for line in wrong)


def test_without_the_position_a_renamed_older_checkpoint_is_loaded(quick, monkeypatch):
    real = checkpoint_format._parse_manifest
    monkeypatch.setattr(
        checkpoint_format,
        "_parse_manifest",
        lambda manifest: {
            name: fact for name, fact in real(manifest).items() if name not in ("epoch", "step")
        },
    )
    assert any(
        "all files are those of the checkpoint before" in line
        for line in corrupt(quick, len(DAMAGES))
    )


@pytest.mark.long
def test_run_falls_back_and_ends_on_the_same_hash(tmp_path, report):
    """Damages the newest three checkpoints of a killed run, each in another way."""
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
        for path, damage in zip(others, (flip, cut, replace_all), strict=False)
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
