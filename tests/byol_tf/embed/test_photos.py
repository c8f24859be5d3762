"""Memory and disk use of embedding many photos, and resuming after a kill."""

import os
import tracemalloc
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from byol_tf.embed import photos, store
from byol_tf.embed.photos import EmbeddedPhotos
from byol_tf.embed.store import Store
from byol_tf.runs.encoder_files import EncoderFiles, encoder_files
from pipelines.sources import FlatImageFolder

COUNT, NUMBERS = 96, 96_000
"""Number of photos and width of embeddings: 37 MB in all, against which the photos are small."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> EncoderFiles:
    """Repeats a photo's 48 values 2,000 times."""
    images = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Resizing(4, 4, crop_to_aspect_ratio=True, dtype="float32")(images)
    model = keras.Model(
        images,
        keras.layers.Flatten()(keras.layers.RepeatVector(NUMBERS // 48)(keras.layers.Flatten()(x))),
    )
    path = tmp_path_factory.mktemp("encoder") / "encoder.keras"
    model.save(path)
    return encoder_files(str(path))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(photos, "_BATCH_SIZE", 4)


def make_folder(path: Path, count: int) -> Path:
    path.mkdir()
    for number, pixels in enumerate(
        np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    ):
        Image.fromarray(pixels).save(path / f"{number:03}.png")
    return path


def open_photos(encoder: EncoderFiles, images: Path, out: Path) -> EmbeddedPhotos:
    folder = FlatImageFolder(str(images), "--images")
    return EmbeddedPhotos(folder, encoder, Store(out, encoder.digest, folder.folder), {})


def embed_folder(encoder: EncoderFiles, images: Path, out: Path) -> EmbeddedPhotos:
    embedded = open_photos(encoder, images, out)
    embedded.embed_missing()
    assert [photo.name for photo in embedded.photos] == sorted(
        path.name for path in images.glob("[0-9][0-9][0-9].png")
    )
    for row, photo in enumerate(embedded.photos):
        np.testing.assert_allclose(
            embedded.embeddings[row, -48:].reshape(4, 4, 3),
            np.asarray(Image.open(images / photo.path)),
            atol=0.01,
        )
    with np.load(out / "embeddings.npz") as arrays:
        np.testing.assert_array_equal(arrays["embeddings"][:, :48], embedded.embeddings[:, :48])
    return embedded


class Killed(BaseException):
    """A power cut."""


def kill_after(monkeypatch, encoder: EncoderFiles, images: Path, out: Path, count: int) -> int:
    """Embeds with a part per batch until photo number `count`; returns the rows in the parts."""
    read = FlatImageFolder.read

    def failing(self, photo):
        if photo.name >= f"{count:03}":
            raise Killed
        return read(self, photo)

    with monkeypatch.context() as patched:
        patched.setattr(photos, "_PART_SECONDS", -1.0)
        patched.setattr(FlatImageFolder, "read", failing)
        with pytest.raises(Killed):
            embed_folder(encoder, images, out)
    stored = 0
    for path in (out / "parts").iterdir():
        with np.load(path) as arrays:
            stored += len(arrays["embeddings"])
    return stored


def test_memory_is_that_of_the_embeddings_once(encoder, tmp_path):
    images = make_folder(tmp_path / "images", COUNT)
    # without the memory of imports
    embed_folder(encoder, make_folder(tmp_path / "few", 4), tmp_path / "first")
    for reused in (0, COUNT - 2):
        (images / "000.png").write_bytes(b"broken")
        tracemalloc.start()
        embedded = open_photos(encoder, images, tmp_path / "out")
        embedded.embed_missing()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (embedded.reused, len(embedded.photos), len(embedded.skipped)) == (
            reused,
            COUNT - 1,
            1,
        )
        # 2.0, as NumPy copies up to 17 MB when it writes, however large the array is
        assert embedded.embeddings.nbytes < peak < 2.0 * embedded.embeddings.nbytes
        Image.new("RGB", (4, 4), "red").save(images / "050.png")


def test_bytes_written_are_proportional_to_new_rows(encoder, tmp_path, monkeypatch):
    images, written, sync = make_folder(tmp_path / "images", 40), [], os.fsync

    def counted(file):
        written.append(os.fstat(file).st_size)
        sync(file)

    monkeypatch.setattr(photos, "_PART_SECONDS", -1.0)
    monkeypatch.setattr(os, "fsync", counted)
    total = embed_folder(encoder, images, tmp_path / "out").embeddings.nbytes
    assert len([size for size in written if size > total / 20]) > 8  # a part per batch
    assert sum(written) < 2.1 * total  # each row once in a part, and once at the end
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "about.json",
        "embeddings.npz",
        "index.csv",
    ]
    written.clear()
    (images / "broken.png").write_bytes(b"broken")
    assert embed_folder(encoder, images, tmp_path / "out").reused == 40
    # an unreadable photo is tried each time, and doesn't cause the others to be written again
    assert sum(written) < 1_000


def test_part_is_written_when_new_rows_are_many(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "_PART_BYTES", 5 * 4 * NUMBERS)
    shapes = []
    monkeypatch.setattr(
        Store, "write_part", lambda self, photos, embeddings: shapes.append(embeddings.shape)
    )
    embed_folder(encoder, make_folder(tmp_path / "images", 20), tmp_path / "out")
    assert shapes == [(8, NUMBERS), (8, NUMBERS)]


def test_killed_command_resumes_with_the_stored_photos(encoder, tmp_path, monkeypatch):
    images, out = make_folder(tmp_path / "images", 40), tmp_path / "out"
    (images / "00.png").write_bytes(b"broken")
    stored = kill_after(monkeypatch, encoder, images, out, 22)
    assert stored == 20
    again = kill_after(monkeypatch, encoder, images, out, 30)
    assert again == 28
    (out / "parts" / ".0009.npz.part").write_bytes(b"cut")
    (images / "001.png").unlink()
    embedded = embed_folder(encoder, images, out)
    assert embedded.reused == again - 1
    assert sorted(path.name for path in out.iterdir()) == [
        "about.json",
        "embeddings.npz",
        "index.csv",
        "skipped.csv",
    ]
    Image.new("RGB", (4, 4), "red").save(images / "040.png")
    assert embed_folder(encoder, images, out).reused == 39


def test_kill_before_parts_are_removed_is_harmless(encoder, tmp_path, monkeypatch):
    images, out = make_folder(tmp_path / "images", 12), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(photos, "_PART_SECONDS", -1.0)
        patched.setattr(store.shutil, "rmtree", lambda path, ignore_errors: None)
        embed_folder(encoder, images, out)
    assert len(list((out / "parts").iterdir())) > 1
    assert embed_folder(encoder, images, out).reused == 12
    assert not (out / "parts").exists()


@pytest.mark.parametrize(("file", "stored"), [("index.csv", 11), ("about.json", 0)])
def test_kill_between_files_gives_no_photo_anothers_row(
    encoder, tmp_path, monkeypatch, file, stored
):
    images, out = make_folder(tmp_path / "images", 12), tmp_path / "out"
    embed_folder(encoder, images, out)
    (images / "003.png").unlink()
    Image.new("RGB", (4, 4), "red").save(images / "012.png")  # as many as before, in other rows
    write = store.write_atomically

    def failing(path, content):
        if path.name == file:
            raise Killed
        write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_atomically", failing)
        with pytest.raises(Killed):
            embed_folder(encoder, images, out)
    assert embed_folder(encoder, images, out).reused == stored


@pytest.mark.parametrize("file", ["embeddings.npz", "parts/0002.npz"])
def test_damaged_file_is_ignored(encoder, tmp_path, monkeypatch, file):
    images, out = make_folder(tmp_path / "images", 20), tmp_path / "out"
    if file == "embeddings.npz":
        embed_folder(encoder, images, out)
        stored = 0
    else:
        stored = kill_after(monkeypatch, encoder, images, out, 18) - 4
    content = bytearray((out / file).read_bytes())
    content[len(content) // 2] ^= 1  # one bit of a number
    (out / file).write_bytes(content)
    assert embed_folder(encoder, images, out).reused == stored
