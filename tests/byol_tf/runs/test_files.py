"""Atomic files and folders, JSON, CSV tables, and paths of other people's folders."""

import os

import pytest

from byol_tf.errors import RunFolderError, describe_path
from byol_tf.runs.files import (
    append_to,
    atomic_folder,
    check_fits_memory,
    check_no_link,
    csv_text,
    newest_version,
    read_csv,
    read_json_object,
    remove_left_overs,
    sha256,
    why_no_folder,
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

    def test_link_at_the_temporary_name_is_not_followed(self, tmp_path):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "mine").write_text("mine")
        (tmp_path / ".folder.part").symlink_to(tmp_path / "other")
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "file").write_text("content")
        assert [path.name for path in (tmp_path / "other").iterdir()] == ["mine"]
        assert not (tmp_path / "folder").is_symlink()


def test_csv_has_all_digits_and_empty_cells_for_none(tmp_path):
    rows = [(1, 0.1 + 0.2, None), (2, 1e-300, 'comma, "quote"')]
    expected = 'a,b,c\n1,0.30000000000000004,\n2,1e-300,"comma, ""quote"""\n'
    assert csv_text(("a", "b", "c"), rows) == expected
    write_csv(tmp_path / "table.csv", ("a", "b", "c"), rows)
    assert (tmp_path / "table.csv").read_text() == expected


def test_text_that_utf8_does_not_have_is_written_escaped(tmp_path):
    name = os.fsdecode(b"l\xe4uf")
    write_atomically(tmp_path / "page.html", name)
    write_csv(tmp_path / "table.csv", ["label"], [[name]])
    assert (tmp_path / "page.html").read_text() == r"l\udce4uf"
    assert (tmp_path / "table.csv").read_text() == "label\nl\\udce4uf\n"


def test_text_is_no_formula_and_stays_the_same(tmp_path):
    write_csv(tmp_path / "table.csv", ("class", "probability"), [("=A1", "0.5"), ("-1", -0.5)])
    assert (tmp_path / "table.csv").read_text() == "class,probability\n'=A1,0.5\n-1,-0.5\n"
    assert [row["class"] for row in read_csv(tmp_path / "table.csv", ("class",))] == ["=A1", "-1"]


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


def test_nothing_is_appended_or_made_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic links"):
        append_to(tmp_path / "link")
    assert (tmp_path / "mine").read_text() == "mine"
    (tmp_path / "figures").symlink_to(tmp_path)
    with pytest.raises(RunFolderError, match=r"figures: it is a link"):
        check_no_link(tmp_path / "figures")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected the column path; it has none"),
        ("a,b\n1,2\n", "expected the column path; it has none"),
        ("path,reason\na,b,c\n", "expected 2 cells in row 1"),
        ("path,reason\na,b\nc\n", "expected 2 cells in row 2"),
        ("path,reason\na,b\nc,d", "its last line is cut off"),
        (f"path,reason\n{'x' * 200_000},b\n", "field larger than field limit"),
        (b"path,reason\n\xff,b\n", "can't decode byte 0xff"),
    ],
)
def test_damaged_table_is_an_error_that_names_it(tmp_path, content, message):
    file = tmp_path / "skipped.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"skipped.csv:?.*{message}"):
        read_csv(file, ("path", "reason"))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", b"\xff", b'{"a":' * 100_000 + b"1" + b"}" * 100_000]
)
def test_damaged_json_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"result\.json: "):
        read_json_object(tmp_path / "result.json")


@pytest.mark.parametrize(
    "name", ["=HYPERLINK(1).png", "+a.png", "-a.png", "@SUM(1).png", "#1.png", "'=a.png"]
)
def test_path_is_no_formula_and_no_comment_and_stays_a_path(tmp_path, name):
    (tmp_path / name).write_text("photo")
    write_csv(tmp_path / "index.csv", ("row", "path", "score"), [(0, name, -1.5)])
    cell = (tmp_path / "index.csv").read_text().splitlines()[1].split(",")[1]
    assert cell[0] not in "=+-@#"
    assert (tmp_path / cell).read_text() == "photo"
    (row,) = read_csv(tmp_path / "index.csv", ("path",))
    assert row == {"row": "0", "path": name, "score": "-1.5"}


def test_sparse_file_larger_than_memory_is_not_read(tmp_path):
    with (tmp_path / "encoder.keras").open("wb") as file:
        os.truncate(file.fileno(), 10**13)
    with pytest.raises(OSError, match=r"10,000\.0 GB, and .* GB of memory are free.*encoder.keras"):
        check_fits_memory([tmp_path / "encoder.keras"])


def test_folder_whose_name_is_not_utf8_is_refused(tmp_path):
    assert "isn't UTF-8" in why_no_folder(tmp_path / os.fsdecode(b"l\xe4uf"))


def test_path_that_cannot_be_looked_at_has_the_systems_reason(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, described, no_folder in (
        (tmp_path, "that is a folder", None),
        (tmp_path / "new" / "folder", "there is nothing there", None),
        (tmp_path / "file", "that is a file", f"{tmp_path}/file is no folder"),
        (tmp_path / "file" / "x", "there is nothing there", "Not a directory"),
        (tmp_path / "link", "there is nothing there", f"{tmp_path}/link is a link to nothing"),
        ("/dev/null", "that is neither a file nor a folder", "/dev/null is no folder"),
        ("a" * 300, "it can't be read: File name too long", "File name too long"),
        ("a/" * 5000, "it can't be read: File name too long", "File name too long"),
    ):
        assert describe_path(path) == described
        assert why_no_folder(type(tmp_path)(path)) == no_folder
    assert describe_path("a\0b").startswith("it can't be read: ")
    assert "embedded null" in describe_path("a\0b")  # the rest depends on Python's version
    assert "embedded null" in why_no_folder(type(tmp_path)("a\0b"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on Windows")
@pytest.mark.parametrize(
    "use",
    [append_to, read_json_object, sha256, lambda path: check_fits_memory([path])],
)
def test_pipe_and_device_are_no_files(tmp_path, use):
    """A pipe would be waited for without end, and this device has no end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        with pytest.raises(OSError, match=r"not a regular file|symbolic links|No such device"):
            use(tmp_path / name)
