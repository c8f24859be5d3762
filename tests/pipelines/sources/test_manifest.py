"""The list of a run's photos: what is written is read, and a small file can't fill the memory."""

import gzip

import pytest

from pipelines.sources import PhotoManifest, manifest


def test_photos_are_read_as_they_were_written():
    photos = PhotoManifest(
        {"a/1.jpg": 10, "b/2.jpg": 20}, {"a/1.jpg": "cat"}, (("c.jpg", "empty"),), {"all": None}
    )
    content = photos.to_bytes()
    assert PhotoManifest.from_bytes(content) == photos
    assert PhotoManifest.from_bytes(content).to_bytes() == content


@pytest.mark.parametrize("content", [b"", b"{}", b"packed {}", b"packed [1]"])
def test_other_content_is_an_error(content):
    if content.startswith(b"packed "):
        content = gzip.compress(content.removeprefix(b"packed "))
    with pytest.raises(ValueError, match="expected the list of photos that a run wrote"):
        PhotoManifest.from_bytes(content)


def test_text_larger_than_memory_holds_is_not_parsed(monkeypatch):
    """60 kB may unpack to a text whose lists take gigabytes."""
    monkeypatch.setattr(manifest, "free_memory", lambda: 2**20)
    content = gzip.compress(b"[" + b"[]," * 2**16 + b"[]]")
    with pytest.raises(ValueError, match="unpacks to more than 32,768 bytes"):
        PhotoManifest.from_bytes(content)
