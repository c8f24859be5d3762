"""Hostile and broken archives are rejected before anything of them is unpacked."""

import io
import tarfile
from pathlib import Path

import pytest

from pipelines.sources import SourceError, open_source
from pipelines.sources.tfds.prepare import check_tar
from tests.pipelines.sources.conftest import pack

MOST = 1_000_000


def member(
    name: str, member_type: bytes = tarfile.REGTYPE, target: str = "", size: int = 0
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = member_type, target, size
    return info


HOSTILE = {
    "climbs": (member("../escaped.txt", size=3), "lies outside the folder"),
    "absolute": (member("/tmp/escaped.txt", size=3), "lies outside the folder"),
    "symbolic link": (member("link", tarfile.SYMTYPE, "/etc"), "is a link or a device"),
    "hard link": (member("link", tarfile.LNKTYPE, "../escaped.txt"), "is a link or a device"),
    "device": (member("zero", tarfile.CHRTYPE), "is a link or a device"),
    "pipe": (member("pipe", tarfile.FIFOTYPE), "is a link or a device"),
    "bomb": (member("zeros", size=50_000_000), "expected at most 1,000,000 bytes in it"),
}


def hostile(path: Path, name: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member("good.bin", size=10), io.BytesIO(bytes(10)))
        info = HOSTILE[name][0]
        archive.addfile(info, io.BytesIO(bytes(info.size)) if info.size else None)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_is_rejected(tmp_path, name):
    with pytest.raises(SourceError, match=HOSTILE[name][1]) as caught:
        check_tar(hostile(tmp_path / "a.tar.gz", name), MOST)
    assert str(tmp_path / "a.tar.gz") in str(caught.value)


@pytest.mark.parametrize("kept", [0, 1, 20, 0.5, 0.9])
def test_broken_archive_is_rejected(tmp_path, kept):
    path = tmp_path / "a.tar.gz"
    pack(path, {str(number): bytes(range(256)) * 400 for number in range(5)}, "w:gz")
    check_tar(path, MOST)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept >= 1 or kept == 0 else kept * len(data))])
    with pytest.raises(SourceError, match="is no complete tar archive"):
        check_tar(path, MOST)


def test_data_set_is_not_prepared_from_hostile_archive(tmp_path, stl10_archive, record_archive):
    """It has the size and the checksum that TFDS expects."""
    with (
        tarfile.open(stl10_archive.path) as good,
        tarfile.open(tmp_path / "stl10_binary.tar.gz", "w:gz") as evil,
    ):
        for info in good:
            evil.addfile(info, good.extractfile(info))
        evil.addfile(member("../../escaped.txt", size=3), io.BytesIO(b"out"))
    record_archive("stl10", [tmp_path / "stl10_binary.tar.gz"])
    with pytest.raises(SourceError, match=r"'\.\./\.\./escaped.txt' in it lies outside"):
        open_source(
            "stl10", root=str(tmp_path / "data"), archive=str(tmp_path / "stl10_binary.tar.gz")
        )
    assert not list(tmp_path.rglob("escaped.txt"))


def test_unchecked_archive_writes_outside_its_folder(tmp_path):
    """The control: tarfile unpacks the same archive, as it does by default before Python 3.14."""
    path, inside = hostile(tmp_path / "a.tar.gz", "climbs"), tmp_path / "deep" / "er"
    inside.mkdir(parents=True)
    with tarfile.open(path) as archive:
        archive.extractall(inside, filter="fully_trusted")
    assert (tmp_path / "deep" / "escaped.txt").exists()
