"""Checkpoints are complete or absent, and every damage is detected."""

import errno
import json
import os
import re
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest

from byol_tf.errors import RunFolderError
from byol_tf.runs import checkpoint_format
from byol_tf.runs.checkpoint_format import DamagedCheckpoint
from byol_tf.runs.checkpoints import (
    list_checkpoints,
    read_newest,
    recover,
    remove_old,
    verify,
    write_checkpoint,
)


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        "online/encoder/0000/conv/kernel": draw.normal(size=(3, 3, 2)).astype(np.float32),
        "optimizer/0000/iterations": np.int64(7 + seed),
        "optimizer/0001/empty": np.zeros((0, 4), np.float16),
    }


def assert_same(received: dict, expected: dict) -> None:
    assert list(received) == list(expected)
    for name, value in expected.items():
        assert received[name].dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(received[name], value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_read_returns_what_was_written(tmp_path):
    state = {"rows": [{"epoch": 0, "loss": 3.5}], "seconds": 0.1 + 0.2}
    assert (
        write_checkpoint(tmp_path / "new" / "folder", 3, 0, arrays(), state)
        == tmp_path / "new" / "folder" / "epoch-0003"
    )
    checkpoint, damaged = read_newest(tmp_path / "new" / "folder")
    assert damaged == []
    assert (checkpoint.epoch, checkpoint.step, checkpoint.state) == (3, 0, state)
    assert_same(checkpoint.arrays, arrays())


def test_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    assert read_newest(tmp_path) == (None, [])
    assert read_newest(tmp_path / "missing") == (None, [])


def is_valid(path: Path) -> bool:
    try:
        verify(path)
    except (OSError, ValueError):
        return False
    return True


def test_checkpoints_are_ordered_by_epoch_then_step(tmp_path):
    for epoch, step in ((10, 0), (9, 2_000_000), (9, 0), (9, 17), (10_000, 3)):
        write_checkpoint(tmp_path, epoch, step, arrays(step), {"at": step})
    expected = [
        "epoch-0009",
        "epoch-0009-step-000017",
        "epoch-0009-step-2000000",
        "epoch-0010",
        "epoch-10000-step-000003",
    ]
    assert [path.name for path in list_checkpoints(tmp_path)] == expected
    newest = read_newest(tmp_path)[0]
    assert (newest.epoch, newest.step, newest.state) == (10_000, 3, {"at": 3})
    assert_same(newest.arrays, arrays(3))


class TestRemoveOld:
    def write(self, folder: Path, *positions: tuple[int, int]) -> None:
        for epoch, step in positions:
            write_checkpoint(folder, epoch, step, arrays(), {})

    def test_newest_by_number_not_by_name(self, tmp_path):
        self.write(tmp_path, (1, 0), (9_999, 0), (9_999, 5), (10_000, 0))
        remove_old(tmp_path, 3, is_valid, {})
        assert names(tmp_path) == ["epoch-10000", "epoch-9999", "epoch-9999-step-000005"]

    def test_two_valid_checkpoints_are_kept_besides_damaged_ones(self, tmp_path):
        self.write(tmp_path, (1, 0), (2, 0), (3, 0), (4, 0), (4, 1))
        for name in ("epoch-0003", "epoch-0004"):
            flip_a_byte(tmp_path / name / "arrays.npz")
        remove_old(tmp_path, 1, is_valid, {})
        assert names(tmp_path) == [
            "epoch-0002",
            "epoch-0003",
            "epoch-0004",
            "epoch-0004-step-000001",
        ]

    def test_best_by_probe_is_kept(self, tmp_path):
        self.write(tmp_path, (1, 0), (2, 0), (3, 0), (4, 0), (5, 0))
        remove_old(tmp_path, 2, is_valid, {0: 0.99, 1: 0.2, 2: 0.6, 3: 0.4, 5: 0.5})
        assert names(tmp_path) == ["epoch-0002", "epoch-0004", "epoch-0005"]

    def test_other_files_are_left_alone(self, tmp_path):
        (tmp_path / "epoch-best").mkdir()
        (tmp_path / "notes.txt").write_text("mine")
        self.write(tmp_path, (1, 0), (2, 0), (3, 0))
        remove_old(tmp_path, 2, is_valid, {})
        assert names(tmp_path) == ["epoch-0002", "epoch-0003", "epoch-best", "notes.txt"]


def test_left_overs_are_removed_by_the_next_write(tmp_path):
    (tmp_path / ".epoch-0001-step-000003.part").mkdir()
    write_checkpoint(tmp_path, 2, 0, arrays(), {})
    assert names(tmp_path) == ["epoch-0002"]


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("arrays.npz", flip_a_byte),
        ("arrays.npz", lambda path: path.write_bytes(path.read_bytes()[:-40])),
        ("arrays.npz", lambda path: path.write_bytes(b"")),
        ("arrays.npz", Path.unlink),
        ("state.json", lambda path: path.write_text("{}")),
        ("state.json", Path.unlink),
        ("manifest.json", lambda path: path.write_text("")),
        ("manifest.json", lambda path: path.write_text("{}")),
        ("manifest.json", lambda path: path.write_text("[]")),
        ("manifest.json", lambda path: path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)),
        ("manifest.json", Path.unlink),
    ],
)
def test_damaged_checkpoint_is_named_and_previous_is_read(tmp_path, name, damage):
    write_checkpoint(tmp_path, 1, 0, arrays(1), {"at": 1})
    write_checkpoint(tmp_path, 2, 0, arrays(2), {"at": 2})
    damage(tmp_path / "epoch-0002" / name)
    checkpoint, damaged = read_newest(tmp_path)
    assert (checkpoint.epoch, checkpoint.state) == (1, {"at": 1})
    assert_same(checkpoint.arrays, arrays(1))
    assert len(damaged) == 1
    assert damaged[0].path == tmp_path / "epoch-0002"
    assert damaged[0].reason.startswith(name)


def test_every_damaged_checkpoint_is_named(tmp_path):
    for epoch in (1, 2):
        write_checkpoint(tmp_path, epoch, 0, arrays(), {"at": epoch})
        (tmp_path / f"epoch-000{epoch}" / "state.json").write_text("{")
    checkpoint, damaged = read_newest(tmp_path)
    assert checkpoint is None
    assert [damage.path.name for damage in damaged] == ["epoch-0002", "epoch-0001"]


@pytest.mark.parametrize(
    "operation", ["zipfile.ZipFile.open", "json.dumps", "os.fsync", "pathlib.Path.rename"]
)
def test_interrupted_write_leaves_earlier_checkpoints_only(tmp_path, monkeypatch, operation):
    write_checkpoint(tmp_path, 1, 0, arrays(1), {"at": 1})

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(operation, stopped)
        write_checkpoint(tmp_path, 2, 0, arrays(2), {"at": 2})
    assert [path.name for path in list_checkpoints(tmp_path)] == ["epoch-0001"]
    assert read_newest(tmp_path)[1] == []
    assert_same(read_newest(tmp_path)[0].arrays, arrays(1))
    write_checkpoint(tmp_path, 2, 0, arrays(2), {"at": 2})  # over what was left
    assert names(tmp_path) == ["epoch-0001", "epoch-0002"]
    assert_same(read_newest(tmp_path)[0].arrays, arrays(2))


def test_damaged_checkpoint_is_written_again(tmp_path):
    write_checkpoint(tmp_path, 1, 0, arrays(1), {"at": 1})
    (tmp_path / "epoch-0001" / "arrays.npz").write_bytes(b"damaged")
    write_checkpoint(tmp_path, 1, 0, arrays(2), {"at": 2})
    assert_same(read_newest(tmp_path)[0].arrays, arrays(2))


def test_arrays_are_plain_and_not_pickled(tmp_path):
    folder = write_checkpoint(tmp_path, 1, 0, arrays(), {"at": 1})
    assert names(folder) == ["arrays.npz", "manifest.json", "state.json"]
    with np.load(folder / "arrays.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_checkpoint_of_another_position_is_damaged(tmp_path):
    for epoch in (1, 2):
        write_checkpoint(tmp_path, epoch, 0, arrays(epoch), {"at": epoch})
    (tmp_path / "epoch-0002").rename(tmp_path / "epoch-0009-step-000004")
    checkpoint, damaged = read_newest(tmp_path)
    assert checkpoint.epoch == 1
    assert (
        damaged[0].reason == "expected the files of (epoch, step) (9, 4); received those of (2, 0)"
    )


def test_manifest_of_format_1_is_read(tmp_path):
    folder = write_checkpoint(tmp_path, 1, 0, arrays(), {"at": 1})
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(
        json.dumps({name: manifest[name] for name in ("arrays.npz", "state.json")})
    )
    assert read_newest(tmp_path)[0].state == {"at": 1}


def test_checkpoint_of_another_version_is_not_damaged(tmp_path, monkeypatch):
    for epoch in (1, 2):
        write_checkpoint(tmp_path, epoch, 0, arrays(), {})
    monkeypatch.setattr(checkpoint_format, "FORMAT", 3)
    for read in (lambda: read_newest(tmp_path), lambda: recover(tmp_path)):
        with pytest.raises(
            RunFolderError,
            match=r"epoch-0002: expected a checkpoint of format 1 or 3; received format 2",
        ):
            read()
    assert names(tmp_path) == ["epoch-0001", "epoch-0002"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ENOMEM])
def test_temporary_read_error_is_not_damage(tmp_path, monkeypatch, number):
    write_checkpoint(tmp_path, 1, 0, arrays(), {})

    def refused(*_):
        raise OSError(number, "not now")

    monkeypatch.setattr(checkpoint_format, "open_regular", refused)
    with pytest.raises(OSError, match="not now"):
        recover(tmp_path)
    assert names(tmp_path) == ["epoch-0001"]


class TestRecover:
    def test_nothing_is_logged_without_damage(self, tmp_path, caplog):
        assert recover(tmp_path / "missing") is None
        write_checkpoint(tmp_path, 1, 0, arrays(), {"at": 1})
        assert recover(tmp_path).state == {"at": 1}
        assert caplog.messages == []

    def test_damaged_checkpoint_is_logged_and_set_aside(self, tmp_path, caplog):
        write_checkpoint(tmp_path, 1, 0, arrays(), {"at": 1})
        for _ in range(2):
            flip_a_byte(write_checkpoint(tmp_path, 2, 0, arrays(), {"at": 2}) / "arrays.npz")
            assert recover(tmp_path).state == {"at": 1}
        assert names(tmp_path) == ["damaged", "epoch-0001"]
        assert names(tmp_path / "damaged") == ["epoch-0002", "epoch-0002.2"]
        assert caplog.messages[1] == (
            f"damaged checkpoint, not used: {tmp_path / 'epoch-0002'}: arrays.npz is not what was "
            "written; "
            f"moved to {tmp_path / 'damaged' / 'epoch-0002.2'}"
        )

    def test_no_valid_checkpoint_is_an_error_and_moves_nothing(self, tmp_path):
        for epoch in (1, 2):
            (write_checkpoint(tmp_path, epoch, 0, arrays(), {}) / "state.json").write_text("{")
        with pytest.raises(RunFolderError, match="expected a valid checkpoint among 2") as raised:
            recover(tmp_path)
        assert all(name in str(raised.value) for name in ("epoch-0001", "epoch-0002"))
        assert names(tmp_path) == ["epoch-0001", "epoch-0002"]

    @pytest.mark.parametrize("epochs", [1, 7])
    def test_history_without_checkpoints_is_an_error(self, tmp_path, epochs):
        with pytest.raises(
            RunFolderError,
            match=rf"expected checkpoints, as the run's history has {epochs} epoch\(s\); found none",
        ):
            recover(tmp_path, epochs)

    @pytest.mark.parametrize("partial", [False, True])
    def test_run_killed_in_its_first_save_restarts(self, tmp_path, partial):
        """The history has the epoch by then."""
        if partial:
            (tmp_path / "checkpoints" / ".epoch-0001.part").mkdir(parents=True)
        assert recover(tmp_path / "checkpoints", 1) is None

    def test_missing_folder_after_the_second_epoch_is_an_error(self, tmp_path):
        with pytest.raises(RunFolderError, match="history has 2 epoch"):
            recover(tmp_path / "checkpoints", 2)

    @pytest.mark.parametrize("name", ["checkpoints", "checkpoints/damaged"])
    def test_nothing_is_removed_or_moved_through_a_link(self, tmp_path, name):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / ".thesis.tex.part").write_text("mine")
        if name == "checkpoints/damaged":
            write_checkpoint(tmp_path / "checkpoints", 1, 0, arrays(), {})
            flip_a_byte(
                write_checkpoint(tmp_path / "checkpoints", 2, 0, arrays(), {}) / "arrays.npz"
            )
        (tmp_path / name).symlink_to(tmp_path / "mine")
        with pytest.raises(RunFolderError, match=f"{name}: it is a link"):
            recover(tmp_path / "checkpoints")
        assert names(tmp_path / "mine") == [".thesis.tex.part"]

    @pytest.mark.parametrize("target", ["nowhere", "epoch-0002"])  # the second links to itself
    def test_dangling_link_is_damage(self, tmp_path, target, caplog):
        """Reading it once never ended."""

        def too_long(*_):
            raise TimeoutError

        before = signal.signal(signal.SIGALRM, too_long)
        write_checkpoint(tmp_path, 1, 0, arrays(), {"at": 1})
        signal.alarm(10)
        try:
            for _ in range(2):
                (tmp_path / "epoch-0002").symlink_to(target)
                assert recover(tmp_path).state == {"at": 1}
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        assert names(tmp_path) == ["damaged", "epoch-0001"]
        assert names(tmp_path / "damaged") == ["epoch-0002", "epoch-0002.2"]
        assert len(caplog.messages) == 2
        # One that couldn't be set aside doesn't keep a save from its name.
        (tmp_path / "epoch-0002").symlink_to(target)
        write_checkpoint(tmp_path, 2, 0, arrays(), {"at": 2})
        assert read_newest(tmp_path)[0].state == {"at": 2}


def test_removing_a_link_keeps_its_target(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for epoch in (1, 2, 3):
        write_checkpoint(tmp_path, epoch, 0, arrays(), {})
    (tmp_path / "epoch-0001").rename(tmp_path / "elsewhere" / "epoch-0001")
    (tmp_path / "epoch-0001").symlink_to(tmp_path / "elsewhere" / "epoch-0001")
    remove_old(tmp_path, 2, is_valid, {})
    recover(tmp_path)
    assert names(tmp_path) == ["elsewhere", "epoch-0002", "epoch-0003"]
    assert names(tmp_path / "elsewhere" / "epoch-0001") == [
        "arrays.npz",
        "manifest.json",
        "state.json",
    ]


def test_disk_that_returns_other_bytes_fails_the_save(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, 1, 0, arrays(), {"at": 1})
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[::-1]))
    with pytest.raises(DamagedCheckpoint, match=r"manifest\.json is not what was written"):
        write_checkpoint(tmp_path, 2, 0, arrays(), {"at": 2})
    assert names(tmp_path) == ["epoch-0001"]


def test_compressed_arrays_are_not_read(tmp_path, monkeypatch):
    """A file of some kilobytes could unpack to gigabytes; a run doesn't compress."""

    def write_packed(file, arrays):
        np.savez_compressed(file, zeros=np.zeros(10**7, np.uint8))

    monkeypatch.setattr(checkpoint_format, "_write_arrays", write_packed)
    write_checkpoint(tmp_path, 1, 0, {}, {})
    assert (tmp_path / "epoch-0001" / "arrays.npz").stat().st_size < 20_000
    checkpoint, (damage,) = read_newest(tmp_path)
    assert checkpoint is None
    assert re.fullmatch(r"arrays.npz: it unpacks to 10,000,\d+ bytes; .*", damage.reason)


def test_array_that_states_a_huge_shape_is_damage(tmp_path, monkeypatch):
    def write_header(file, arrays):
        with zipfile.ZipFile(file, "w") as archive, archive.open("a.npy", "w") as entry:
            header = {"descr": "<f4", "fortran_order": False, "shape": (10**15,)}
            np.lib.format.write_array_header_1_0(entry, header)

    monkeypatch.setattr(checkpoint_format, "_write_arrays", write_header)
    write_checkpoint(tmp_path, 1, 0, {}, {})
    checkpoint, (damage,) = read_newest(tmp_path)
    assert checkpoint is None and damage.reason.startswith("arrays.npz: ")


def test_sparse_checkpoint_larger_than_memory_is_not_read(tmp_path):
    write_checkpoint(tmp_path, 1, 0, arrays(), {})
    os.truncate(tmp_path / "epoch-0001" / "arrays.npz", 10**13)
    with pytest.raises(OSError, match=r"10,000\.0 GB, and .* of memory are free"):
        read_newest(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
def test_sparse_side_file_is_damage(tmp_path, name):
    write_checkpoint(tmp_path, 1, 0, arrays(), {})
    os.truncate(tmp_path / "epoch-0001" / name, 10**13)
    checkpoint, (damage,) = read_newest(tmp_path)
    assert checkpoint is None and damage.reason.startswith(f"{name} has more than ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on Windows")
@pytest.mark.parametrize("name", ["manifest.json", "state.json", "arrays.npz"])
def test_pipe_in_place_of_a_file_is_damage(tmp_path, name):
    """It would be waited for without end."""
    folder = write_checkpoint(tmp_path, 1, 0, arrays(), {})
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DamagedCheckpoint, match="not a regular file"):
        verify(folder)
