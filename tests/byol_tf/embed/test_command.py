"""The command that uses an encoder at once: what it keeps, what it reuses, what it shows, its
errors."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from byol_tf.embed.__main__ import main

ROOT = Path(__file__).parents[3]
BROKEN_NAME = os.fsdecode(b"x $1$ \xff.png")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A `.keras` file that gives the photo itself, 4 x 4 pixels of it: so it is known what is
    alike."""
    images = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Resizing(4, 4, crop_to_aspect_ratio=True, antialias=True, dtype="float32")(
        images
    )
    model = keras.Model(images, keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(x)))
    path = tmp_path_factory.mktemp("encoder") / "encoder.keras"
    model.save(path)
    return path


@pytest.fixture
def heap(tmp_path) -> Path:
    """Nested folders of photos, 15 reddish and 15 bluish ones of two sizes; one with EXIF; an odd
    name; one that is broken."""
    draw, folder = np.random.default_rng(0), tmp_path / "my photos"
    for number in range(30):
        pixels = draw.integers(0, 90, (32, 40, 3) if number % 3 else (48, 30, 3), dtype=np.uint8)
        pixels[..., 0 if number < 15 else 2] += 120
        path = (
            folder / "red" / f"{number}.png"
            if number < 15
            else folder / "blue" / "deep" / f"{number}.png"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    shutil.copy(folder / "red" / "3.png", folder / BROKEN_NAME)
    half = np.zeros((40, 40, 3), np.uint8)
    half[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(half).save(folder / "turned.jpg", exif=exif, quality=95)
    (folder / "broken.jpg").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("mine")
    return folder


def ran(capsys, *arguments) -> tuple[dict, str]:
    """(result, all that was printed)."""
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    return json.loads(printed.splitlines()[-1]), printed


def refused(capsys, *arguments) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def index(out: Path) -> list[str]:
    with (out / "index.csv").open(encoding="utf-8", newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


def test_each_photo_has_its_row(encoder, heap, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in heap.rglob("*") if path.is_file()}
    result, printed = ran(capsys, "--encoder", encoder, "--images", heap)
    out = tmp_path / result["out"]
    names = index(out)
    assert names == sorted(names) and len(names) == result["photos"] == 32
    assert {"red/0.png", "blue/deep/29.png", "turned.jpg", "x $1$ \\xff.png"} <= set(names)
    embeddings = np.load(out / "embeddings.npz")["embeddings"]
    assert embeddings.shape == (32, 48) and embeddings.dtype == np.float32
    model = keras.models.load_model(encoder)
    for name in ("red/0.png", "blue/deep/17.png"):
        alone = model.predict_on_batch(np.asarray(Image.open(heap / name))[None])[0]
        np.testing.assert_allclose(embeddings[names.index(name)], alone, atol=1e-5)
    turned = embeddings[names.index("turned.jpg")].reshape(4, 4, 3)
    assert turned[0].max() < 0.05 and turned[3].min() > 0.95
    with (out / "skipped.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["path", "reason"],
            ["broken.jpg", "not an image of a supported format"],
        ]
    assert "broken.jpg: not an image" in printed and printed.count("broken.jpg") == 1
    assert "--few labels.csv" in printed and "--nearest" in printed
    assert {path: path.read_bytes() for path in heap.rglob("*") if path.is_file()} == before


def test_what_is_embedded_is_embedded_once(encoder, heap, tmp_path, capsys, monkeypatch):
    from byol_tf.runs import encoders as judged

    arguments = ("--encoder", encoder, "--images", heap, "--out", tmp_path / "out")
    first, _ = ran(capsys, *arguments)
    assert first["reused"] == 0
    before, rows = (
        index(tmp_path / "out"),
        np.load(tmp_path / "out" / "embeddings.npz")["embeddings"],
    )
    with monkeypatch.context() as without_encoder:
        without_encoder.setattr(
            judged, "load_encoder_file", lambda path: pytest.fail("it was loaded again")
        )
        again, printed = ran(capsys, *arguments, "--nearest", heap / "red" / "3.png")
    assert again["reused"] == 32 and "all kept from before" in printed
    shutil.copy(heap / "red" / "1.png", heap / "red" / "2.png")  # changed
    os.utime(heap / "red" / "2.png", ns=(1, 1))
    (heap / "blue" / "deep" / "20.png").unlink()  # gone
    Image.new("RGB", (32, 40), "red").save(heap / "a new one.png")
    third, _ = ran(capsys, *arguments)
    assert (third["photos"], third["reused"]) == (32, 30)
    names, after = (
        index(tmp_path / "out"),
        np.load(tmp_path / "out" / "embeddings.npz")["embeddings"],
    )
    np.testing.assert_allclose(
        after[names.index("red/2.png")], after[names.index("red/1.png")], atol=1e-6
    )
    assert "blue/deep/20.png" not in names
    assert (after[names.index("red/14.png")] == rows[before.index("red/14.png")]).all()


def test_rows_that_do_not_go_with_their_index_are_not_used(encoder, heap, tmp_path, capsys):
    arguments = ("--encoder", encoder, "--images", heap, "--out", tmp_path / "out")
    ran(capsys, *arguments)
    rows = (tmp_path / "out" / "index.csv").read_text()
    (tmp_path / "out" / "index.csv").write_text(rows.replace("red/1.png", "red/2.png", 1))
    assert ran(capsys, *arguments)[0]["reused"] == 0
    (tmp_path / "out" / "embeddings.npz").write_bytes(b"cut")
    assert ran(capsys, *arguments)[0]["reused"] == 0


def test_neighbours_of_photos_from_here_and_elsewhere(encoder, heap, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere.png"
    Image.new("RGB", (64, 64), (10, 20, 200)).save(elsewhere)
    out, odd = tmp_path / "out", tmp_path / BROKEN_NAME
    shutil.copy(elsewhere, odd)
    photos = (heap / "red" / "3.png", elsewhere, "red/4.png", odd)
    ran(capsys, "--encoder", encoder, "--images", heap, "--out", out, "--nearest", *photos)
    with (out / "nearest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["query"] for row in rows[::8]] == [
        "red/3.png",
        str(elsewhere),
        "red/4.png",
        f"{tmp_path}/x $1$ \\xff.png",
    ]
    first, second, _, fourth = (rows[start : start + 8] for start in (0, 8, 16, 24))
    assert [row["path"] for row in fourth] == [row["path"] for row in second]
    assert (
        first[0]["path"] == "x $1$ \\xff.png" and float(first[0]["cosine"]) > 0.99999
    )  # its copy, and not itself
    assert all(row["path"].startswith(("red/", "x ")) for row in first)
    assert all(row["path"].startswith("blue/") for row in second)
    assert (out / "nearest.png").read_bytes().startswith(b"\x89PNG")


def test_a_few_labels_sort_the_rest_and_can_be_added_to(encoder, heap, tmp_path, capsys):
    out, labels = tmp_path / "out", tmp_path / "labels.csv"
    given = {f"red/{number}.png": "warm" for number in range(5)} | {
        f"blue/deep/{number}.png": "cold" for number in range(15, 20)
    }
    labels.write_text(
        "path,label\n"
        + "".join(f"{path},{label}\n" for path, label in given.items())
        + "broken.jpg,warm\n"
    )
    arguments = ("--encoder", encoder, "--images", heap, "--out", out, "--few")
    result, printed = ran(capsys, *arguments, labels)
    assert (
        "broken.jpg has a label and can't be read (not an image of a supported format): left out"
        in printed
    )
    assert result["few"] | {"interval": None} == {
        "labels": 10,
        "classes": ["cold", "warm"],
        "accuracy": 1.0,
        "interval": None,
    }
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32
    assert {row["path"]: row["label"] for row in rows if row["label"]} == given
    assert [row["label"] for row in rows].index("warm") >= 22  # those with labels come last
    open_rows = [row for row in rows if not row["label"]]
    assert [float(row["probability"]) for row in open_rows] == sorted(
        float(row["probability"]) for row in open_rows
    )
    for row in open_rows:
        if row["path"].startswith(("red/", "blue/")):
            assert row["prediction"] == {"red": "warm", "blue": "cold"}[row["path"].split("/")[0]]
        assert float(row["p(cold)"]) + float(row["p(warm)"]) == pytest.approx(1.0, abs=2e-4)
    assert (out / "uncertain.png").exists()
    rows[0]["label"] = "cold"
    with labels.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    assert ran(capsys, *arguments, labels)[0]["few"]["labels"] == 11


def test_a_run_is_its_export(encoder, heap, tmp_path):
    """Which files decide, and that the digest tells when they change."""
    from byol_tf.embed.encoder_files import encoder_files

    exported = tmp_path / "run" / "export"
    exported.mkdir(parents=True)
    shutil.copy(encoder, exported)
    found = encoder_files(str(tmp_path / "run"))
    assert (found.path, found.run) == (exported / "encoder.keras", False)
    assert found.digest == encoder_files(str(encoder)).digest
    checkpoint = tmp_path / "run" / "checkpoints" / "epoch-0001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "arrays.npz").write_bytes(b"1")
    (tmp_path / "run" / "config.json").write_text("{}")
    trained = encoder_files(str(tmp_path / "run"))
    assert trained.run and trained.path == tmp_path / "run"
    (checkpoint / "arrays.npz").write_bytes(b"2")
    assert encoder_files(str(tmp_path / "run")).digest != trained.digest


def test_ctrl_c_keeps_what_is_embedded(encoder, heap, tmp_path, capsys, monkeypatch):
    from byol_tf.embed import photos as embedder
    from pipelines.sources import FlatImageFolder

    read, done = FlatImageFolder.read, []

    def interrupted(self, photo):
        done.append(photo)
        if len(done) == 20:
            raise KeyboardInterrupt
        return read(self, photo)

    arguments = ["--encoder", str(encoder), "--images", str(heap), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(embedder, "_BATCH", 4)  # so that some are done by then
    with monkeypatch.context() as patched:
        patched.setattr(FlatImageFolder, "read", interrupted)
        assert main(arguments) == 130
    assert "The same command goes on" in capsys.readouterr().out
    kept = len(index(tmp_path / "out"))
    assert 4 <= kept < 20
    assert ran(capsys, *arguments)[0]["reused"] == kept


def test_what_cannot_be_done_is_said_before_anything_is_written(encoder, heap, tmp_path, capsys):
    out = tmp_path / "out"
    where = ("--encoder", encoder, "--images", heap, "--out", out)
    assert "--encoder nothing: expected a run folder" in refused(
        capsys, "--encoder", "nothing", *where[2:]
    )
    assert "that folder holds none of them" in refused(capsys, "--encoder", tmp_path, *where[2:])
    assert "--images: there is no folder" in refused(
        capsys, "--encoder", encoder, "--images", tmp_path / "my photo"
    )
    assert "did you mean" in refused(
        capsys, "--encoder", encoder, "--images", tmp_path / "my photo"
    )
    (tmp_path / "none").mkdir()
    assert "--images:" in refused(capsys, "--encoder", encoder, "--images", tmp_path / "none")
    assert "--nearest gone.jpg: there is no such file" in refused(
        capsys, *where, "--nearest", "gone.jpg"
    )
    assert "expected a photo that can be read; not an image" in refused(
        capsys, *where, "--nearest", heap / "broken.jpg"
    )
    assert "expected the folder of a SavedModel or a .keras file" in refused(
        capsys, "--encoder", heap / "broken.jpg", *where[2:]
    )
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\nred/0.png,a\nred/77.png,b\n")
    assert f"{labels}:3: red/77.png: no photo of that name" in refused(
        capsys, *where, "--few", labels
    )
    assert not out.exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "index.csv").write_text("mine")
    assert "it holds something else" in refused(capsys, *where[:4], "--out", mine)
    assert (mine / "index.csv").read_text() == "mine"
    only_broken = tmp_path / "only broken"
    only_broken.mkdir()
    shutil.copy(heap / "broken.jpg", only_broken)
    assert "not one photo can be read. For example broken.jpg" in refused(
        capsys, "--encoder", encoder, "--images", only_broken, "--out", out
    )
    assert not out.exists()


def test_another_encoder_or_folder_needs_another_out(encoder, heap, tmp_path, capsys):
    ran(capsys, "--encoder", encoder, "--images", heap, "--out", tmp_path / "out")
    other = tmp_path / "other.keras"
    model = keras.models.load_model(encoder)
    keras.Model(model.inputs, keras.layers.ReLU()(model.outputs[0])).save(other)
    assert "the embeddings of another encoder" in refused(
        capsys, "--encoder", other, "--images", heap, "--out", tmp_path / "out"
    )
    assert "the embeddings of another folder" in refused(
        capsys, "--encoder", encoder, "--images", heap / "red", "--out", tmp_path / "out"
    )


def test_help_is_quick_and_needs_no_tensorflow():
    code = (
        "import sys, byol_tf.embed.__main__ as e\ntry: e.main(['--help'])\nexcept SystemExit: "
        "assert 'tensorflow' not in sys.modules"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=False
        ).returncode
        == 0
    )
