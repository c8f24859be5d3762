"""Atomic files and folders, and CSV tables."""

import pytest

from byol_tf.runs.files import (
    atomic_folder,
    csv_text,
    newest_version,
    remove_left_overs,
    write_atomically,
    write_csv,
)


class TestWriteAtomically:
    def test_replaces_the_content_and_leaves_nothing_else(self, tmp_path):
        for text in ("first, and longer", "é ü 写"):
            write_atomically(tmp_path / "file", text)
            assert (tmp_path / "file").read_bytes() == text.encode()
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    @pytest.mark.parametrize("operation", ["os.fsync", "pathlib.Path.replace"])
    def test_failure_keeps_the_old_content(self, tmp_path, monkeypatch, operation):
        write_atomically(tmp_path / "file", b"old")

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(operation, full)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(tmp_path / "file", b"new")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        assert (tmp_path / "file").read_bytes() == b"old"

    @pytest.mark.parametrize("operation", ["os.fsync", "pathlib.Path.replace"])
    def test_reader_never_sees_a_partial_file(self, tmp_path, monkeypatch, operation):
        write_atomically(tmp_path / "file", "old")

        def stopped(*_):
            assert (tmp_path / "file").read_text() == "old"
            raise KeyboardInterrupt

        with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
            interrupted.setattr(operation, stopped)
            write_atomically(tmp_path / "file", "new")
        assert (tmp_path / "file").read_text() == "old"
        write_atomically(tmp_path / "file", "new")
        assert (tmp_path / "file").read_text() == "new"

    def test_link_at_the_temporary_name_is_not_followed(self, tmp_path):
        (tmp_path / "other").write_text("other")
        (tmp_path / ".file.part").symlink_to(tmp_path / "other")
        write_atomically(tmp_path / "file", "new")
        assert (tmp_path / "file").read_text() == "new"
        assert not (tmp_path / "file").is_symlink()
        assert (tmp_path / "other").read_text() == "other"


class TestAtomicFolder:
    @pytest.mark.parametrize("exists", [False, True])
    def test_becomes_a_new_or_empty_folder(self, tmp_path, exists):
        target = tmp_path / "parent" / "folder"
        if exists:
            target.mkdir(parents=True)
        with atomic_folder(target) as temporary:
            (temporary / "file").write_text("content")
            assert exists == target.exists()
        assert (target / "file").read_text() == "content"
        assert [path.name for path in target.parent.iterdir()] == ["folder"]

    def test_failure_leaves_nothing(self, tmp_path):
        with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "file").write_text("content")
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []

    def test_folder_with_content_is_not_replaced(self, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "mine").write_text("mine")
        with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "folder"):
            pass
        assert [path.name for path in tmp_path.rglob("*")] == ["folder", "mine"]

    def test_left_over_of_a_killed_process_is_replaced(self, tmp_path):
        (tmp_path / ".folder.part").mkdir()
        (tmp_path / ".folder.part" / "old").write_text("old")
        with atomic_folder(tmp_path / "folder") as temporary:
            assert list(temporary.iterdir()) == []


def test_csv_has_all_digits_and_empty_cells_for_none(tmp_path):
    rows = [(1, 0.1 + 0.2, None), (2, 1e-300, 'comma, "quote"')]
    expected = 'a,b,c\n1,0.30000000000000004,\n2,1e-300,"comma, ""quote"""\n'
    assert csv_text(("a", "b", "c"), rows) == expected
    write_csv(tmp_path / "table.csv", ("a", "b", "c"), rows)
    assert (tmp_path / "table.csv").read_text() == expected


def test_left_overs_are_removed_and_other_hidden_files_kept(tmp_path):
    (tmp_path / ".folder.part").mkdir()
    for name in (".file.part", ".file.part.keras", ".lock", "file.part"):
        (tmp_path / name).write_text("")
    remove_left_overs(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "file.part"]


def test_newest_version_is_the_highest_number(tmp_path):
    for name in ("2", "10", "old", "11"):
        (tmp_path / name).mkdir()
        if name != "11":
            (tmp_path / name / "saved_model.pb").write_text("")
    assert newest_version(tmp_path) == tmp_path / "10"
    assert newest_version(tmp_path / "2") == tmp_path / "2"
    assert newest_version(tmp_path / "none") == tmp_path / "none"
