"""Tables of labels as people write them, and the messages about wrong ones."""

import re
import unicodedata
from pathlib import Path

import pytest

from byol_tf.embed.labels import match_labels, read_labels
from byol_tf.errors import EmbedError
from pipelines.sources import TableRow

NAMES = ["a.jpg", "sub/b.jpg", "sub/c d.jpg", unicodedata.normalize("NFD", "café.jpg")]


def matched(tmp_path, content: str | bytes) -> dict[str, str]:
    file = tmp_path / "labels.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return match_labels(file, read_labels(file), NAMES, tmp_path / "photos")


@pytest.mark.parametrize(
    "content",
    [
        "path,label\na.jpg,x\nsub/b.jpg,y\n",
        "\ufeffPath;Label\r\na.jpg;x\r\nsub/b.jpg;y\r\n",
        "row\tlabel\tpath\n0\tx\ta.jpg\n1\ty\tsub/b.jpg\n2\t\tsub/c d.jpg\n3\n",
        'path,label,note\n"a.jpg", x ,"why, indeed"\nsub/b.jpg,y\n',
        "path,class\na.jpg,x\nsub/b.jpg,y\n",
        "Filename;Category\ra.jpg;x\rsub/b.jpg;y\r",
        "path,label\na.jpg,x\nsub/b.jpg,y\n".encode("utf-16"),
        "path,label\n.\\a.jpg,x\nsub\\b.jpg,y\n",
    ],
)
def test_tables_of_several_programs_are_read(tmp_path, content):
    assert matched(tmp_path, content) == {"a.jpg": "x", "sub/b.jpg": "y"}


def test_relative_paths_and_accented_names_are_matched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = (
        f"path,label\nphotos/a.jpg,x\n{tmp_path}/photos/sub/b.jpg,y\n"
        f"{unicodedata.normalize('NFC', 'café.jpg')},y\n"
    )
    assert matched(tmp_path, content) == {"a.jpg": "x", "sub/b.jpg": "y", NAMES[3]: "y"}


def test_spaces_around_a_path_may_belong_to_the_photo(tmp_path):
    file, names = tmp_path / "labels.csv", [" a.jpg", "a.jpg", "b.jpg ", "sub/c.jpg"]
    file.write_text("path,label\n a.jpg,x\na.jpg,y\nb.jpg ,x\n  sub/c.jpg  ,y\n")
    labels = match_labels(file, read_labels(file), names, tmp_path / "photos")
    assert labels == {" a.jpg": "x", "a.jpg": "y", "b.jpg ": "x", "sub/c.jpg": "y"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "",
            "labels.csv:1: expected a first line that names the columns path and label; received "
            "''",
        ),
        (
            "a.jpg,x\n",
            "labels.csv:1: expected a first line that names the columns path and label; received "
            "'a.jpg,x'",
        ),
        (
            "path,label\na.jpg,x\nsub/B.jpg,y\n",
            r"labels.csv:3: sub/B.jpg: no photo of that name below .*photos; did you mean sub/b.jpg\?",
        ),
        (
            "path,label\na.jpg,x\nelsewhere/B.jpg,y\n",
            r"labels.csv:3: elsewhere/B.jpg: .*; did you mean sub/b.jpg\?",
        ),
        (
            "path,label\na.jpg,x\nsub/c_d.jpg,y\n",
            r"labels.csv:3: sub/c_d.jpg: .*; did you mean sub/c d.jpg\?",
        ),
        (
            "path,label\na.jpg,x\nsub/b.jpg,y\na.jpg,y\n",
            "labels.csv:4: a.jpg is 'y' here and 'x' in line 2",
        ),
        ("path,label\n,x\n", "labels.csv:2: a label .'x'. without a path"),
        (
            "path,label\na.jpg,x\nsub/b.jpg,x\n",
            "labels.csv: expected labels of two classes or more; all 2 are 'x'",
        ),
        ("path,label\na.jpg,\n", "expected labels of two classes or more; none has a label"),
        ('path,label\na.jpg,"x\nsub/b.jpg,y\n', "labels.csv:2: expected a quote at both ends"),
        (b"path,label\na.jpg,\xe4\n", "labels.csv:2: expected text in UTF-8; received byte 0xe4"),
        (
            "path,label\na.jpg,\x1b]0;x\x07\n",
            r"labels.csv:2: expected text; received the control character '\\x1b'",
        ),
    ],
)
def test_errors_name_file_and_line(tmp_path, content, message):
    with pytest.raises(EmbedError, match=message):
        matched(tmp_path, content)


def test_all_errors_are_raised_together(tmp_path):
    with pytest.raises(EmbedError) as error:
        matched(tmp_path, "path,label\n" + "".join(f"no{number}.jpg,x\n" for number in range(30)))
    lines = str(error.value).splitlines()
    assert [re.match(r".*csv:(\d+): ", line)[1] for line in lines[:-1]] == [
        str(number) for number in range(2, 22)
    ]
    assert lines[-1] == "... and 10 more"


def test_similar_paths_are_hints_among_few_photos(tmp_path):
    """Comparing each wrong path with each of 200,000 names would take minutes."""
    names = [f"{number % 100}/IMG_{number:06}.JPG" for number in range(2_001)]
    rows = [TableRow(2, "7/IMG_ 000007.JPG", "x")]
    with pytest.raises(EmbedError, match=r"did you mean 7/IMG_000007.JPG"):
        match_labels(tmp_path / "labels.csv", rows, names[:2_000], tmp_path)
    with pytest.raises(EmbedError, match=r"no photo of that name below [^;]*$"):
        match_labels(tmp_path / "labels.csv", rows, names, tmp_path)


def test_wrong_paths_among_200000_photos_get_hints(tmp_path):
    names = [f"{number % 100}/IMG_{number:06}.JPG" for number in range(200_000)]
    rows = [
        TableRow(number, f"IMG_{number:06}.jpg" if number % 2 else f"no {number}.jpg", "x")
        for number in range(20)
    ]
    with pytest.raises(EmbedError) as error:
        match_labels(tmp_path / "labels.csv", rows, names, tmp_path)
    lines = str(error.value).splitlines()
    assert lines[7].endswith("; did you mean 7/IMG_000007.JPG?")
    assert lines[8].endswith(f"no photo of that name below {tmp_path}")


def test_missing_file_is_named():
    with pytest.raises(
        EmbedError,
        match=r"--few nowhere\.csv: expected a table with the columns path and label; No such file",
    ):
        read_labels(Path("nowhere.csv"))
