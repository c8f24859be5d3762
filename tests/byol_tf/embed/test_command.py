"""`python -m byol_tf.embed`: stored and reused embeddings, similar photos, few labels, errors."""

import csv
import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from byol_tf.embed.__main__ import main
from byol_tf.embed.store import Store
from byol_tf.errors import EmbedError
from pipelines.sources import Photo
from tests.helpers.small_run import CONFIG

ROOT = Path(__file__).parents[3]
BROKEN_NAME = os.fsdecode(b"x $1$ \xff.png")
TIMEOUT = 600.0  # seconds; a guard against hanging


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A `.keras` file whose embedding is the photo's 4 x 4 pixels, so that similarity is known."""
    images = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Resizing(4, 4, crop_to_aspect_ratio=True, antialias=True, dtype="float32")(
        images
    )
    model = keras.Model(images, keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(x)))
    path = tmp_path_factory.mktemp("encoder") / "encoder.keras"
    model.save(path)
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    """Nested folders with 15 reddish and 15 bluish photos of two sizes, and unusual files.

    Those are a photo with EXIF rotation, one with an invalid name, and a broken one.
    """
    rng, folder = np.random.default_rng(0), tmp_path / "my photos"
    for number in range(30):
        pixels = rng.integers(0, 90, (32, 40, 3) if number % 3 else (48, 30, 3), dtype=np.uint8)
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


def run(capsys, *arguments) -> tuple[dict, str]:
    """(result, all that was printed)."""
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    return json.loads(printed.splitlines()[-1]), printed


def refused(capsys, *arguments) -> str:
    """The message of a command that ends with 2."""
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def index(out: Path) -> list[str]:
    """Names of the photos, a row each."""
    with (out / "index.csv").open(encoding="utf-8", newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


def test_each_photo_has_its_row(encoder, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    result, printed = run(capsys, "--encoder", encoder, "--images", photos)
    out = tmp_path / result["out"]
    names = index(out)
    assert names == sorted(names) and len(names) == result["photos"] == 32
    assert {"red/0.png", "blue/deep/29.png", "turned.jpg", "x $1$ \\xff.png"} <= set(names)
    embeddings = np.load(out / "embeddings.npy")
    assert embeddings.shape == (32, 48) and embeddings.dtype == np.float32
    model = keras.models.load_model(encoder)
    for name in ("red/0.png", "blue/deep/17.png"):
        alone = model.predict_on_batch(np.asarray(Image.open(photos / name))[None])[0]
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
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before


def test_photos_are_embedded_once(encoder, photos, tmp_path, capsys, monkeypatch):
    from byol_tf.runs import encoders

    arguments = ("--encoder", encoder, "--images", photos, "--out", tmp_path / "out")
    first, _ = run(capsys, *arguments)
    assert first["reused"] == 0
    before, rows = (
        index(tmp_path / "out"),
        np.load(tmp_path / "out" / "embeddings.npy"),
    )
    with monkeypatch.context() as without_encoder:
        without_encoder.setattr(
            encoders, "load_encoder_file", lambda path: pytest.fail("loaded again")
        )
        again, printed = run(capsys, *arguments, "--nearest", photos / "red" / "3.png")
    assert again["reused"] == 32 and "all stored before" in printed
    shutil.copy(photos / "red" / "1.png", photos / "red" / "2.png")  # changed
    os.utime(photos / "red" / "2.png", ns=(1, 1))
    (photos / "blue" / "deep" / "20.png").unlink()  # gone
    Image.new("RGB", (32, 40), "red").save(photos / "a new one.png")
    third, _ = run(capsys, *arguments)
    assert (third["photos"], third["reused"]) == (32, 30)
    names, after = (
        index(tmp_path / "out"),
        np.load(tmp_path / "out" / "embeddings.npy"),
    )
    np.testing.assert_allclose(
        after[names.index("red/2.png")], after[names.index("red/1.png")], atol=1e-6
    )
    assert "blue/deep/20.png" not in names
    assert (after[names.index("red/14.png")] == rows[before.index("red/14.png")]).all()


def test_rows_of_another_index_are_not_reused(encoder, photos, tmp_path, capsys):
    arguments = ("--encoder", encoder, "--images", photos, "--out", tmp_path / "out")
    run(capsys, *arguments)
    rows = (tmp_path / "out" / "index.csv").read_text()
    (tmp_path / "out" / "index.csv").write_text(rows.replace("red/1.png", "red/2.png", 1))
    assert run(capsys, *arguments)[0]["reused"] == 0
    (tmp_path / "out" / "embeddings.npy").write_bytes(b"cut")
    assert run(capsys, *arguments)[0]["reused"] == 0


def test_similar_photos_of_queries_inside_and_outside(encoder, photos, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere.png"
    Image.new("RGB", (64, 64), (10, 20, 200)).save(elsewhere)
    out, odd = tmp_path / "out", tmp_path / BROKEN_NAME
    shutil.copy(elsewhere, odd)
    queries = (photos / "red" / "3.png", elsewhere, "red/4.png", odd)
    run(capsys, "--encoder", encoder, "--images", photos, "--out", out, "--nearest", *queries)
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


def test_index_finds_the_similar_photos_of_exact_search(encoder, photos, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ("--encoder", encoder, "--images", photos, "--out", out)
    queries = ("--nearest", photos / "red" / "3.png", "blue/deep/20.png")
    run(capsys, *arguments, *queries)
    exact = (out / "nearest.csv").read_text()
    for number in (2, 3):  # of queries, and one alone
        result, printed = run(capsys, *arguments, "--index", *queries[:number])
        assert result["recall"] == 1.0 and "finds 100.0% of the 8 nearest" in printed
        assert exact.startswith((out / "nearest.csv").read_text())


def test_parquet_is_kept_up_to_date(encoder, photos, tmp_path, capsys):
    import duckdb

    out = tmp_path / "out"
    arguments = ("--encoder", encoder, "--images", photos, "--out", out)
    run(capsys, *arguments)
    assert not (out / "embeddings.parquet").exists()
    run(capsys, *arguments, "--parquet")
    (photos / "red" / "1.png").unlink()
    for _ in range(2):
        _, printed = run(capsys, *arguments)
        assert f"{out / 'embeddings.parquet'}   " in printed
        rows = duckdb.read_parquet(str(out / "embeddings.parquet")).fetchall()
        assert [row[0] for row in rows] == index(out)
        np.testing.assert_array_equal(
            np.array([row[3] for row in rows]), np.load(out / "embeddings.npy")
        )


def test_a_terminal_shows_what_takes_long(encoder, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("byol_tf.logs.on_terminal", lambda: True)
    labels = tmp_path / "labels.csv"
    rows = [f"red/{n}.png,red\nblue/deep/{n + 15}.png,blue" for n in range(3)]
    labels.write_text("\n".join(["path,label", *rows]))
    options = ("--few", labels, "--clusters", 2, "--page", "--nearest", photos / "turned.jpg")
    _, printed = run(capsys, "--encoder", encoder, "--images", photos, *options)
    for text in ("searching", "fitting the classifier", "clustering", "drawing the map"):
        assert f"\r\x1b[K{text}" in printed


def test_photos_in_shards_are_embedded_as_files_are(encoder, photos, tmp_path, capsys, monkeypatch):
    from pipelines.sources.shards import index as shard_index

    folder, shards, out = tmp_path / "folder", tmp_path / "shards", tmp_path / "out"
    run(capsys, "--encoder", encoder, "--images", photos, "--out", folder)
    shards.mkdir()
    for color in ("red", "blue"):
        with tarfile.open(shards / f"{color}.tar", "w") as tar:
            for number in range(30):  # not in the order of names
                path = photos / color / "deep" / f"{number}.png"
                path = path if color == "blue" else photos / color / f"{number}.png"
                if path.exists():
                    tar.add(path, f"{number}.png")
    arguments = ("--encoder", encoder, "--out", out, "--images")
    result, _ = run(capsys, *arguments, shards)
    assert (result["photos"], result["skipped"]) == (30, 0)
    names = index(out)
    assert names[:2] == ["blue.tar/15.png", "blue.tar/16.png"] and names[-1] == "red.tar/14.png"
    expected = np.load(folder / "embeddings.npy")[
        [
            index(folder).index(name.replace("red.tar", "red").replace("blue.tar", "blue/deep"))
            for name in names
        ]
    ]
    np.testing.assert_allclose(np.load(out / "embeddings.npy"), expected, atol=1e-6)
    monkeypatch.setattr(shard_index, "_known", {})  # as in a new process
    with monkeypatch.context() as patched:
        patched.setattr(shard_index, "index_shard", lambda shard: pytest.fail("read again"))
        again, printed = run(capsys, *arguments, shards, "--nearest", "red.tar/3.png")
    assert again["reused"] == 30 and "most similar to red.tar/3.png: red.tar/" in printed
    os.utime(shards / "red.tar", ns=(1, 1))  # another file, for all that is known
    assert run(capsys, *arguments, shards)[0]["reused"] == 15
    pattern = ("--images", shards / "{red,blue}.tar", "--out", tmp_path / "pattern")
    assert run(capsys, "--encoder", encoder, *pattern)[0]["photos"] == 30
    assert "--images: there is no " in refused(
        capsys, "--encoder", encoder, "--images", shards / "green.tar"
    )


def test_parts_are_merged_by_the_command_without_them(encoder, photos, tmp_path, capsys):
    whole, out = tmp_path / "whole", tmp_path / "out"
    common = ("--encoder", encoder, "--images", photos)
    run(capsys, *common, "--out", whole)
    sizes = []
    for number in (3, 1):
        result, printed = run(capsys, *common, "--out", out, "--part", f"{number}/3")
        assert "when all 3 parts are embedded, merge them:" in printed
        assert not (out / "index.csv").exists()
        sizes.append(result["photos"])
    merged, printed = run(capsys, *common, "--out", out)  # and embeds what the second part has
    assert merged["reused"] == sum(sizes) and merged["photos"] == 32
    assert not (out / "parts").exists()
    assert (out / "index.csv").read_bytes() == (whole / "index.csv").read_bytes()
    np.testing.assert_allclose(
        np.load(out / "embeddings.npy"), np.load(whole / "embeddings.npy"), atol=1e-6
    )
    assert run(capsys, *common, "--out", out)[0]["reused"] == 32
    (photos / "broken.jpg").unlink()
    shutil.copy(photos / "red" / "1.png", photos / "red" / "new.png")
    for number, new in ((1, 0), (2, 1)):  # parts are of what the merged files lack
        result, _ = run(capsys, *common, "--out", out, "--part", f"{number}/2")
        assert result["photos"] == new
    assert run(capsys, *common, "--out", out)[0]["reused"] == 33


def test_parts_and_their_merge_exclude_each_other(encoder, photos, tmp_path, capsys):
    from byol_tf.runs.encoder_files import encoder_files

    arguments = ("--encoder", encoder, "--images", photos, "--out", tmp_path / "out")
    store = Store(tmp_path / "out", encoder_files(str(encoder)).digest, photos)
    part = store.part(1, 2)
    with part.locked():
        assert f"--out {part.root}: expected a folder that no process uses" in refused(
            capsys, *arguments
        )
        assert run(capsys, *arguments, "--part", "2/2")[0]["photos"] == 17
    with store.locked():
        assert "expected a folder that no process uses" in refused(
            capsys, *arguments, "--part", "2/2"
        )


def test_wrong_parts_are_errors(encoder, photos, capsys):
    arguments = ("--encoder", encoder, "--images", photos, "--part")
    assert "--part: expected no --nearest beside it" in refused(
        capsys, *arguments, "1/2", "--nearest", photos / "red" / "3.png"
    )
    for wrong in ("0/2", "3/2", "1", "1/x"):
        with pytest.raises(SystemExit):
            main([*map(str, arguments), wrong])
        assert f"expected I/N such as 3/16, 1 <= I <= N; received '{wrong}'" in (
            " ".join(capsys.readouterr().err.split())
        )


def test_few_labels_predict_the_rest_and_can_be_extended(encoder, photos, tmp_path, capsys):
    out, labels = tmp_path / "out", tmp_path / "labels.csv"
    labels_by_path = {f"red/{number}.png": "warm" for number in range(5)} | {
        f"blue/deep/{number}.png": "cold" for number in range(15, 20)
    }
    labels.write_text(
        "path,label\n"
        + "".join(f"{path},{label}\n" for path, label in labels_by_path.items())
        + "broken.jpg,warm\n"
    )
    arguments = ("--encoder", encoder, "--images", photos, "--out", out, "--few")
    result, printed = run(capsys, *arguments, labels)
    assert (
        "broken.jpg has a label and can't be read (not an image of a supported format): skipped"
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
    assert {row["path"]: row["label"] for row in rows if row["label"]} == labels_by_path
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
    assert run(capsys, *arguments, labels)[0]["few"]["labels"] == 11

    # Labels that were filled in, but not passed to --few, are kept.
    predictions = (out / "predictions.csv").read_text(encoding="utf-8").splitlines()
    column = predictions[0].split(",").index("label")
    cells = predictions[1].split(",")
    filled_in = ",".join([*cells[:column], "warm", *cells[column + 1 :]])
    text = "\n".join([predictions[0], filled_in, *predictions[2:], ""])
    (out / "predictions.csv").write_text(text, encoding="utf-8")
    _, printed = run(capsys, *arguments, labels)
    assert f"{out / 'predictions-1.csv'}   the table before" in printed
    assert (out / "predictions-1.csv").read_text(encoding="utf-8") == text
    assert "predictions-2.csv" not in run(capsys, *arguments, labels)[1]


def test_run_without_checkpoints_is_its_export(encoder, photos, tmp_path):
    """The digest changes with the files that determine the embeddings."""
    from byol_tf.runs.encoder_files import encoder_files

    exported = tmp_path / "run" / "export"
    exported.mkdir(parents=True)
    shutil.copy(encoder, exported)
    exported_files = encoder_files(str(tmp_path / "run"))
    assert (exported_files.path, exported_files.is_run) == (exported / "encoder.keras", False)
    assert exported_files.digest == encoder_files(str(encoder)).digest
    checkpoint = tmp_path / "run" / "checkpoints" / "epoch-0001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "arrays.npz").write_bytes(b"1")
    (tmp_path / "run" / "config.json").write_text(json.dumps(CONFIG))
    trained = encoder_files(str(tmp_path / "run"))
    assert trained.is_run and trained.path == tmp_path / "run"
    (checkpoint / "arrays.npz").write_bytes(b"2")
    assert encoder_files(str(tmp_path / "run")).digest != trained.digest


def test_ctrl_c_keeps_embedded_photos(encoder, photos, tmp_path, capsys, monkeypatch):
    from byol_tf.embed import photos as photos_module
    from pipelines.sources import FlatImageFolder

    read, done = FlatImageFolder.read, []

    def interrupted(self, photo):
        done.append(photo)
        if len(done) == 20:
            raise KeyboardInterrupt
        return read(self, photo)

    arguments = ["--encoder", str(encoder), "--images", str(photos), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(photos_module, "_BATCH_SIZE", 4)  # so that some are done by then
    with monkeypatch.context() as patched:
        patched.setattr(FlatImageFolder, "read", interrupted)
        assert main(arguments) == 130
    stored = len(index(tmp_path / "out"))
    assert (
        f"stopped by SIGINT; {stored} embedded photos stored. The same command resumes\n"
        in capsys.readouterr().err
    )
    assert 4 <= stored < 20
    assert run(capsys, *arguments)[0]["reused"] == stored


def test_output_that_is_closed_loses_no_embedding(encoder, photos, tmp_path):
    words = ["--encoder", encoder, "--images", photos, "--out", tmp_path / "out"]
    command = shlex.join([sys.executable, "-m", "byol_tf.embed", *map(str, words)])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0 and "Error" not in done.stderr, done.stderr
    assert len(index(tmp_path / "out")) == 32


def test_two_commands_do_not_write_one_folder(encoder, photos, tmp_path, capsys):
    from byol_tf.runs.encoder_files import encoder_files

    out = tmp_path / "out"
    arguments = ("--encoder", encoder, "--images", photos, "--out", out)
    with Store(out, encoder_files(str(encoder)).digest, photos).locked():
        error = refused(capsys, *arguments)
        assert error.startswith(f"--out {out}: expected a folder that no process uses; in use by ")
        assert error.endswith("Wait for it, or name another --out\n")
    assert not out.exists()
    assert run(capsys, *arguments)[0]["photos"] == 32


def test_folder_that_was_taken_over_is_not_written(tmp_path):
    """As after a suspended process wakes up, on a disk without locks."""
    store, rows = Store(tmp_path / "out", "digest", tmp_path), np.zeros((1, 4), np.float32)
    with store.locked():
        store.write_part([Photo("a.jpg", 1, 1)], rows)
        (store.root / ".lock").write_text('{"pid": 7, "host": "another"}')
        with pytest.raises(EmbedError, match=r"this folder alone.*taken over by process 7 on anot"):
            store.write_part([Photo("b.jpg", 1, 1)], rows)
    assert len(store.part_files()) == 1


def test_parts_are_not_written_through_a_link(tmp_path):
    store = Store(tmp_path / "out", "digest", tmp_path)
    store.root.mkdir()
    (tmp_path / "mine").mkdir()
    store.parts.symlink_to(tmp_path / "mine")
    with pytest.raises(EmbedError, match=r"--out .*/parts: it is a link"):
        store.write_part([Photo("a.jpg", 1, 1)], np.zeros((1, 4), np.float32))
    assert not list((tmp_path / "mine").iterdir())


def test_output_folder_is_tried_before_the_photos_are_embedded(encoder, photos, tmp_path, capsys):
    out = photos / "notes.txt" / "out"
    arguments = ("--encoder", encoder, "--images", photos, "--out", out)
    assert refused(capsys, *arguments) == f"--out {out}: can't be written: Not a directory\n"


def test_table_has_all_queries_and_the_sheet_the_first(
    encoder, photos, tmp_path, capsys, monkeypatch
):
    from byol_tf.embed import similar

    monkeypatch.setattr(similar, "SHEET_QUERIES", 2)
    out = tmp_path / "out"
    queries = [photos / "red" / f"{number}.png" for number in range(3)]
    arguments = ("--encoder", encoder, "--images", photos, "--out", out, "--nearest", *queries)
    _, printed = run(capsys, *arguments)
    assert (out / "nearest.csv").read_text().count("\n") == 1 + 3 * 8
    assert f"{out / 'nearest.png'}   the first 2 as a sheet" in printed
    with Image.open(out / "nearest.png") as sheet:
        height_of_two = sheet.height
    monkeypatch.setattr(similar, "SHEET_QUERIES", 3)
    run(capsys, *arguments)
    with Image.open(out / "nearest.png") as sheet:
        assert sheet.height > 1.3 * height_of_two

    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device", "nearest.png")

    monkeypatch.setattr(similar, "write_sheet", full)
    (out / "nearest.csv").unlink()
    assert refused(capsys, *arguments) == "nearest.png: No space left on device\n"
    assert (out / "nearest.csv").exists()


def test_sheet_that_is_not_drawn_is_not_named(encoder, photos, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    names = [f"{number}.png,{'even' if number % 2 == 0 else 'odd'}\n" for number in range(15)]
    labels.write_text("path,label\n" + "".join(names))
    arguments = ("--encoder", encoder, "--images", photos / "red", "--out", tmp_path / "out")
    _, printed = run(capsys, *arguments, "--few", labels)
    assert "predictions.csv" in printed and "uncertain.png" not in printed


def test_errors_are_reported_before_anything_is_written(encoder, photos, tmp_path, capsys):
    out = tmp_path / "out"
    where = ("--encoder", encoder, "--images", photos, "--out", out)
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
        capsys, *where, "--nearest", photos / "broken.jpg"
    )
    assert "expected the folder of a SavedModel or a .keras file" in refused(
        capsys, "--encoder", photos / "broken.jpg", *where[2:]
    )
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\nred/0.png,a\nred/77.png,b\n")
    assert f"{labels}:3: red/77.png: no photo of that name" in refused(
        capsys, *where, "--few", labels
    )
    assert not out.exists()
    parts = tmp_path / "machine" / "parts"
    for foreign in (parts / "screw.jpg", parts / "1-of-2" / "screw.jpg"):
        shutil.rmtree(parts, ignore_errors=True)
        foreign.parent.mkdir(parents=True)
        foreign.write_text("mine")
        assert "it holds something else" in refused(capsys, *where[:4], "--out", parts.parent)
        assert foreign.read_text() == "mine"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "index.csv").write_text("mine")
    assert "it holds something else" in refused(capsys, *where[:4], "--out", mine)
    assert (mine / "index.csv").read_text() == "mine"
    only_broken = tmp_path / "only broken"
    only_broken.mkdir()
    shutil.copy(photos / "broken.jpg", only_broken)
    assert "no photo can be read. For example broken.jpg" in refused(
        capsys, "--encoder", encoder, "--images", only_broken, "--out", out
    )
    assert not out.exists()


def test_paths_that_cannot_be_read_or_written_are_errors(encoder, photos, tmp_path, capsys):
    sparse = tmp_path / "sparse.keras"
    sparse.touch()
    os.truncate(sparse, 10**13)
    for path, message in (
        (sparse, "10,000.0 GB, and "),
        ("a" * 300, "it can't be read: File name too long"),
        ("b/" * 3000, "it can't be read: File name too long"),
    ):
        assert message in refused(capsys, "--encoder", path, "--images", photos)
    assert "--out /dev/null: can't be written: Not a directory" in refused(
        capsys, "--encoder", encoder, "--images", photos, "--out", "/dev/null"
    )


def test_another_encoder_or_folder_needs_another_output_folder(encoder, photos, tmp_path, capsys):
    run(capsys, "--encoder", encoder, "--images", photos, "--out", tmp_path / "out")
    other = tmp_path / "other.keras"
    model = keras.models.load_model(encoder)
    keras.Model(model.inputs, keras.layers.ReLU()(model.outputs[0])).save(other)
    assert "the embeddings of another encoder" in refused(
        capsys, "--encoder", other, "--images", photos, "--out", tmp_path / "out"
    )
    assert "the embeddings of another folder" in refused(
        capsys, "--encoder", encoder, "--images", photos / "red", "--out", tmp_path / "out"
    )


def test_help_does_not_import_tensorflow():
    code = (
        "import sys, byol_tf.embed.__main__ as e\ntry: e.main(['--help'])\nexcept SystemExit: "
        "assert 'tensorflow' not in sys.modules"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        ).returncode
        == 0
    )
