"""Files from elsewhere are opened without waiting, and only files are."""

import os

import pytest

from pipelines import regular_files
from pipelines.regular_files import check_size, open_regular


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on Windows")
def test_pipe_device_and_folder_are_no_files(tmp_path):
    """A pipe would be waited for without end, and this device has no end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


def test_file_is_read_as_it_is(tmp_path):
    (tmp_path / "file").write_bytes(b"\r\n\x1a\0")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"\r\n\x1a\0"


def test_file_larger_than_free_memory_is_an_error(monkeypatch):
    monkeypatch.setattr(regular_files, "free_memory", lambda: 10**9)
    check_size("file", 10**9)
    with pytest.raises(OSError, match=r"it has 2\.0 GB, and 1\.0 GB of memory are free"):
        check_size("file", 2 * 10**9)
