"""What embedding many photos costs in memory and on the disk, and that a killed command goes on
where it was."""

import os
import tracemalloc
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from byol_tf.embed import photos, store
from byol_tf.embed import photos as embedder
from byol_tf.embed.encoder_files import EncoderFiles, encoder_files
from byol_tf.embed.photos import EmbeddedPhotos
from byol_tf.embed.store import Store
from pipelines.sources import FlatImageFolder

COUNT, NUMBERS = 96, 96_000
"""Of photos, and of each one's embedding: 37 MB in all, beside which photos are small."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> EncoderFiles:
    """Gives a photo's 48 pixels 2,000 times."""
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
    monkeypatch.setattr(embedder, "_BATCH", 4)


def folder_of(path: Path, count: int) -> Path:
    path.mkdir()
    for number, pixels in enumerate(
        np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    ):
        Image.fromarray(pixels).save(path / f"{number:03}.png")
    return path


def opened(encoder: EncoderFiles, images: Path, out: Path) -> EmbeddedPhotos:
    heap = FlatImageFolder(str(images), "--images")
    return EmbeddedPhotos(heap, encoder, Store(out, encoder.digest, heap.folder), {})


def embedded(encoder: EncoderFiles, images: Path, out: Path) -> EmbeddedPhotos:
    found = opened(encoder, images, out)
    found.embed_missing(lambda line: None)
    assert [photo.name for photo in found.photos] == sorted(
        path.name for path in images.glob("[0-9][0-9][0-9].png")
    )
    for row, photo in enumerate(found.photos):
        np.testing.assert_allclose(
            found.embeddings[row, -48:].reshape(4, 4, 3),
            np.asarray(Image.open(images / photo.path)),
            atol=0.01,
        )
    with np.load(out / "embeddings.npz") as arrays:
        np.testing.assert_array_equal(arrays["embeddings"][:, :48], found.embeddings[:, :48])
    return found


class Killed(BaseException):
    """As when the power fails."""


def kill_after(monkeypatch, encoder: EncoderFiles, images: Path, out: Path, count: int) -> int:
    """Embeds with a part for each batch, and ends it at the photo with this number; returns how
    many there are in the parts."""
    read = FlatImageFolder.read

    def failing(self, photo):
        if photo.name >= f"{count:03}":
            raise Killed
        return read(self, photo)

    with monkeypatch.context() as patched:
        patched.setattr(photos, "_PART_SECONDS", -1.0)
        patched.setattr(FlatImageFolder, "read", failing)
        with pytest.raises(Killed):
            embedded(encoder, images, out)
    kept = 0
    for path in (out / "parts").iterdir():
        with np.load(path) as arrays:
            kept += len(arrays["embeddings"])
    return kept


def test_memory_is_that_of_the_embeddings_once(encoder, tmp_path):
    images = folder_of(tmp_path / "images", COUNT)
    embedded(
        encoder, folder_of(tmp_path / "few", 4), tmp_path / "first"
    )  # what is imported on the way is not counted
    for reused in (0, COUNT - 2):
        (images / "000.png").write_bytes(b"broken")
        tracemalloc.start()
        found = opened(encoder, images, tmp_path / "out")
        found.embed_missing(lambda line: None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (found.reused, len(found.photos), len(found.skipped)) == (reused, COUNT - 1, 1)
        assert (
            found.embeddings.nbytes < peak < 2.0 * found.embeddings.nbytes
        )  # NumPy writes 17 MB at once, however many there are
        Image.new("RGB", (4, 4), "red").save(images / "050.png")


def test_what_is_kept_on_the_way_costs_in_proportion_to_what_is_new(encoder, tmp_path, monkeypatch):
    images, written, sync = folder_of(tmp_path / "images", 40), [], os.fsync

    def counted(file):
        written.append(os.fstat(file).st_size)
        sync(file)

    monkeypatch.setattr(photos, "_PART_SECONDS", -1.0)
    monkeypatch.setattr(os, "fsync", counted)
    size = embedded(encoder, images, tmp_path / "out").embeddings.nbytes
    assert len([each for each in written if each > size / 20]) > 8  # a part for each batch
    assert sum(written) < 2.1 * size  # each row once in a part, and once in the end
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "about.json",
        "embeddings.npz",
        "index.csv",
    ]
    written.clear()
    (images / "broken.png").write_bytes(b"broken")
    assert embedded(encoder, images, tmp_path / "out").reused == 40
    assert (
        sum(written) < 1_000
    )  # what can't be read is looked at each time, and has the others not written again


def test_what_is_new_is_kept_when_it_is_much(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "_PART_BYTES", 5 * 4 * NUMBERS)
    found = []
    monkeypatch.setattr(
        Store, "write_part", lambda self, photos, embeddings: found.append(embeddings.shape)
    )
    embedded(encoder, folder_of(tmp_path / "images", 20), tmp_path / "out")
    assert found == [(8, NUMBERS), (8, NUMBERS)]


def test_a_killed_command_goes_on_where_it_was(encoder, tmp_path, monkeypatch):
    images, out = folder_of(tmp_path / "images", 40), tmp_path / "out"
    (images / "00.png").write_bytes(b"broken")
    kept = kill_after(monkeypatch, encoder, images, out, 22)
    assert kept == 20
    again = kill_after(monkeypatch, encoder, images, out, 30)
    assert again == 28
    (out / "parts" / ".0009.npz.part").write_bytes(b"cut")
    (images / "001.png").unlink()
    found = embedded(encoder, images, out)
    assert found.reused == again - 1
    assert sorted(path.name for path in out.iterdir()) == [
        "about.json",
        "embeddings.npz",
        "index.csv",
        "skipped.csv",
    ]
    Image.new("RGB", (4, 4), "red").save(images / "040.png")
    assert embedded(encoder, images, out).reused == 39


def test_a_kill_between_the_last_file_and_the_end_of_the_parts_does_no_harm(
    encoder, tmp_path, monkeypatch
):
    images, out = folder_of(tmp_path / "images", 12), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(photos, "_PART_SECONDS", -1.0)
        patched.setattr(store.shutil, "rmtree", lambda path, ignore_errors: None)
        embedded(encoder, images, out)
    assert len(list((out / "parts").iterdir())) > 1
    assert embedded(encoder, images, out).reused == 12
    assert not (out / "parts").exists()


@pytest.mark.parametrize(("file", "kept"), [("index.csv", 11), ("about.json", 0)])
def test_a_kill_between_the_last_files_gives_no_photo_the_row_of_another(
    encoder, tmp_path, monkeypatch, file, kept
):
    images, out = folder_of(tmp_path / "images", 12), tmp_path / "out"
    embedded(encoder, images, out)
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
            embedded(encoder, images, out)
    assert embedded(encoder, images, out).reused == kept


@pytest.mark.parametrize("file", ["embeddings.npz", "parts/0002.npz"])
def test_a_file_that_is_not_whole_is_passed_over(encoder, tmp_path, monkeypatch, file):
    images, out = folder_of(tmp_path / "images", 20), tmp_path / "out"
    if file == "embeddings.npz":
        embedded(encoder, images, out)
        kept = 0
    else:
        kept = kill_after(monkeypatch, encoder, images, out, 18) - 4
    content = bytearray((out / file).read_bytes())
    content[len(content) // 2] ^= 1  # one bit of a number
    (out / file).write_bytes(content)
    assert embedded(encoder, images, out).reused == kept
