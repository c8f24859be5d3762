"""Memory and disk use of embedding many photos, and resuming after a kill."""

import contextlib
import functools
import os
import shutil
import tracemalloc
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from byol_tf.embed import photos, store
from byol_tf.embed.photos import EmbeddedPhotos, progress_bar
from byol_tf.embed.store import Store
from byol_tf.runs import files
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
    np.testing.assert_array_equal(np.load(out / "embeddings.npy"), embedded.embeddings)
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


def test_memory_does_not_grow_with_the_embeddings(encoder, tmp_path, monkeypatch):
    images = make_folder(tmp_path / "images", COUNT)
    monkeypatch.setattr(photos, "_PART_BYTES", 2**21)
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
        # 37 MB of embeddings; a part and its copy, or two blocks that are read or written
        assert peak < 0.4 * embedded.embeddings.nbytes
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
        "embeddings.npy",
        "index.csv",
    ]
    written.clear()
    (images / "broken.png").write_bytes(b"broken")
    assert embed_folder(encoder, images, tmp_path / "out").reused == 40
    # an unreadable photo is tried each time, and doesn't cause the others to be written again
    assert sum(written) < 1_000


def test_part_is_written_when_new_rows_are_many(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "_PART_BYTES", 5 * 4 * NUMBERS)
    shapes, write_part = [], Store.write_part

    def recorded(self, photos, rows):
        shapes.append(rows.shape)
        write_part(self, photos, rows)

    monkeypatch.setattr(Store, "write_part", recorded)
    embed_folder(encoder, make_folder(tmp_path / "images", 20), tmp_path / "out")
    assert shapes == [(8, NUMBERS), (8, NUMBERS), (4, NUMBERS)]


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
        "embeddings.npy",
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


def test_kill_between_any_two_writes_loses_no_stored_row(encoder, tmp_path, monkeypatch):
    """Files of a killed and resumed command are those of another one to the bit."""
    images, out = make_folder(tmp_path / "images", 12), tmp_path / "out"
    embed_folder(encoder, images, out)
    (images / "003.png").unlink()
    Image.new("RGB", (4, 4), "red").save(images / "012.png")  # as many as before, in other rows
    monkeypatch.setattr(photos, "_PART_SECONDS", -1.0)
    before, sync, replace = shutil.copytree(out, tmp_path / "before"), os.fsync, Path.replace

    def embed_killed_at(kill: int) -> int:
        """Returns the number of writes until then."""
        writes = 0

        def counted(function, *arguments):
            nonlocal writes
            writes += 1
            if writes == kill:
                raise Killed
            return function(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", functools.partial(counted, sync))
            patched.setattr(Path, "replace", lambda path, to: counted(replace, path, to))
            patched.setattr(files, "_remove", lambda path: None)  # as nobody does after SIGKILL
            with contextlib.suppress(Killed):
                embed_folder(encoder, images, out)
        return writes

    writes = embed_killed_at(0)
    expected = read_files(out)
    for kill in range(1, writes + 1):
        shutil.rmtree(out)
        shutil.copytree(before, out)
        embed_killed_at(kill)
        # the part's file is synced and then gets its name
        assert embed_folder(encoder, images, out).reused == (11 if kill <= 2 else 12)
        assert read_files(out) == expected


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


class BatchRecorder:
    """A model whose embedding of a photo is its number, which is its first pixel."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def predict_on_batch(self, images):
        self.batches.append(images[:, 0, 0, 0].tolist())
        return images[:, 0, 0, :1]


def test_resumed_command_makes_the_same_batches(monkeypatch):
    """Their embeddings are equal to the bit, which may depend on the rest of a batch."""
    monkeypatch.setattr(photos, "_PENDING_BYTES", 2_000)
    sizes = np.random.default_rng(0).choice([4, 5, 6, 12], 120)
    pixels = [np.full((size, size, 3), row, np.uint8) for row, size in enumerate(sizes)]

    def embed(stored: set[int], kill: int) -> tuple[list[list[int]], set[int]]:
        """(the batches, the rows that are stored when the process is killed)."""
        model = BatchRecorder()
        embedder = photos.BatchEmbedder(model)
        for row in sorted(set(range(kill)) - stored):
            stored = stored | embedder.add(row, pixels[row]).keys()
        return model.batches, stored | (embedder.finish().keys() if kill == len(pixels) else set())

    expected, rows = embed(set(), len(pixels))
    assert rows == set(range(len(pixels))) and {1, 4} <= {len(batch) for batch in expected}
    for kill in range(len(pixels)):
        first, stored = embed(set(), kill)
        second, rows = embed(stored, len(pixels))
        assert sorted(first + second) == sorted(expected) and len(rows) == len(pixels)


@pytest.mark.parametrize("file", ["embeddings.npy", "parts/0002.npz"])
def test_damaged_file_is_ignored(encoder, tmp_path, monkeypatch, file):
    images, out = make_folder(tmp_path / "images", 20), tmp_path / "out"
    if file == "embeddings.npy":
        embed_folder(encoder, images, out)
        stored = 0
    else:
        stored = kill_after(monkeypatch, encoder, images, out, 18) - 4
    content = bytearray((out / file).read_bytes())
    content[len(content) // 2] ^= 1  # one bit of a number
    (out / file).write_bytes(content)
    assert embed_folder(encoder, images, out).reused == stored


def test_bar_is_for_terminals_alone(monkeypatch):
    """Jupyter asks for colours in all processes, and its output is a pipe."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert progress_bar("photos").disable
