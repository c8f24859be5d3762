"""Tables of photos as programs write them: one reader for lists and for labels."""

import pytest

from pipelines.sources import SourceError, read_table

ROWS = [("a.jpg", "cat"), ("b c.jpg", "dog")]
TABLES = {
    "without header.csv": "a.jpg,cat\nb c.jpg,dog\n",
    "without header.txt": "a.jpg\tcat\nb c.jpg\tdog\n",
    "path, class.csv": "path,class\na.jpg,cat\nb c.jpg,dog\n",
    "path, any name.csv": "path,species\na.jpg,cat\nb c.jpg,dog\n",
    "path alone.csv": "path\na.jpg,cat\nb c.jpg,dog\n",
    "filename, label.csv": "filename,label\na.jpg,cat\nb c.jpg,dog\n",
    "label, image.csv": "label,image\ncat,a.jpg\ndog,b c.jpg\n",
    "capitals.csv": "File_Name,Category\na.jpg,cat\nb c.jpg,dog\n",
    "header with spaces.csv": "File Name,Class\na.jpg,cat\nb c.jpg,dog\n",
    "sep of Excel.csv": "sep=;\r\npath;class\r\na.jpg;cat\r\nb c.jpg;dog\r\n",
    "split.csv": "path,label,split\na.jpg,cat,train\nb c.jpg,dog,test\n",
    "index of pandas.csv": ",path,label\n0,a.jpg,cat\n1,b c.jpg,dog\n",
    "semicolons.csv": "path;class\na.jpg;cat\nb c.jpg;dog\n",
    "semicolons without header.csv": "a.jpg;cat\nb c.jpg;dog\n",
    "tabs.tsv": "path\tclass\na.jpg\tcat\nb c.jpg\tdog\n",
    "header with commas.txt": "path,label\na.jpg,cat\nb c.jpg,dog\n",
    "quotes.csv": '"path","label"\n"a.jpg","cat"\n"b c.jpg","dog"\n',
    "Windows.csv": "\ufeffpath,class\r\na.jpg,cat\r\nb c.jpg,dog\r\n",
    "old Mac.csv": "path,class\ra.jpg,cat\rb c.jpg,dog\r",
    "UTF-16.csv": "path,class\na.jpg,cat\nb c.jpg,dog\n".encode("utf-16"),
    "spaces, comments.csv": "# mine\n\npath, label\na.jpg, cat \n\n# sure\nb c.jpg , dog\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_table_is_read(tmp_path, name):
    content = TABLES[name]
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = read_table(file).rows
    assert [(row.path.strip(), row.label) for row in rows] == ROWS


def test_columns_that_are_not_read_are_named(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("id,path,label,split\n7,a.jpg,cat,train\n8,b.jpg\n")
    table = read_table(file)
    assert table.ignored == ("id", "split")
    assert [(row.line, row.label) for row in table.rows] == [(2, "cat"), (3, "")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('path,label\na.jpg,"cat\nb.jpg,dog\n', r"x\.csv:2: expected a quote at both ends"),
        ("a.jpg,cat,train\n", r"x\.csv:1: .* received 3 fields, and no first line that names them"),
        ("path,label,label\n", r"x\.csv:1: expected one column label; received 2"),
    ],
)
def test_wrong_table_is_an_error_with_its_line(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_table(tmp_path / "x.csv")
