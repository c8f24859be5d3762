"""Folders of photos packed into shards, and trained on."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile

from byol_tf.pack.__main__ import main
from pipelines.sources import open_source
from pipelines.sources.shards import writing
from tests.helpers.waiting import HANG
from tests.pipelines.sources.folder.test_source import photo, tree

FORMATS = list(writing.SUFFIXES)
SPLITS = {"train/cat": 5, "train/dog": 6, "valid/cat": 2, "valid/dog": 3, "unlabelled/2021": 4}
FOLDERS = {
    "splits": SPLITS,
    "classes": {"cat": 7, "cat-like": 8, "dog": 6},
    "train alone": {"train/cat": 7, "train/dog": 5, "unlabelled": 4},
    "labelled": {"labelled/cat": 5, "labelled/dog": 5, "other/x": 3, "more": 2},
    "flat": {"": 6},
    "in between": {
        "seg_train/seg_train/cat": 4,
        "seg_train/seg_train/dog": 4,
        "seg_test/dog": 2,
        "seg_test/cat": 2,
    },
}


def pack(root, out, *words: str) -> int:
    return main(["--images", str(root), "--out", str(out), *words])


def digests(folder) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", FOLDERS)
def test_shards_are_the_folder_in_another_form(tmp_path, format, kind):
    root = tree(tmp_path / "x", FOLDERS[kind])
    assert pack(root, tmp_path / "out", "--format", format) == 0
    for seed in (0, 7):
        folder = open_source("folder", root=str(root), seed=seed)
        shards = open_source("shards", root=str(tmp_path / "out"), seed=seed)
        assert folder.class_names == shards.class_names
        for split in ("pretrain", "train", "test"):
            first, second = getattr(folder, split), getattr(shards, split)
            assert (first is None) == (second is None)
            if first is not None:
                assert len(first) == len(second)
                assert all(map(np.array_equal, first, second))
                labels = first.labels is not None and first.labels.tolist()
                assert labels == (second.labels is not None and second.labels.tolist())


@pytest.mark.parametrize("format", FORMATS)
def test_images_of_five_channels_are_packed(tmp_path, format, capsys):
    rng, root = np.random.default_rng(0), tmp_path / "x"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            stack = rng.integers(0, 4000, (5, 12, 10), np.uint16)
            tifffile.imwrite(root / name / f"{number}.tif", stack, photometric="minisblack")
        np.save(root / name / "9.npy", np.moveaxis(stack, 0, 2) // 2)
    np.save(root / "cat" / "grey.npy", stack[0])
    pixels = {"channels": 5, "depth": 16, "range": (0, 4000), "max_unreadable_fraction": 0.1}
    assert pack(root, tmp_path / "out", "--format", format, "--channels", "5") == 0
    assert "--set data.channels=5" in capsys.readouterr().out
    rows = list(csv.reader((tmp_path / "out" / "skipped.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["path", "cat/grey.npy"]
    (root / "cat" / "grey.npy").unlink()
    folder = open_source("folder", root=str(root), **pixels)
    for check in ("pixels", "headers"):
        shards = open_source(
            "shards", root=str(tmp_path / "out"), check=check, on_lost=print, **pixels
        )
        assert len(shards.pretrain) == 10
        assert all(map(np.array_equal, folder.pretrain, shards.pretrain))
        assert shards.train.labels.tolist() == folder.train.labels.tolist()


def test_remote_folder_is_packed_to_the_same_bytes(tmp_path):
    memory = fsspec.filesystem("memory")
    root = tree(tmp_path / "x", SPLITS)
    memory.put(str(root), "/packed/photos", recursive=True)
    assert pack(root, tmp_path / "near") == 0
    assert pack("memory://packed/photos", tmp_path / "far") == 0
    memory.rm("/packed", recursive=True)
    near, far = digests(tmp_path / "near"), digests(tmp_path / "far")
    assert near.pop("shards.json") != far.pop("shards.json")  # of other files, by their times
    assert near == far


def test_tar_gives_the_folder_back(tmp_path):
    root = tree(tmp_path / "x", SPLITS)
    assert pack(root, tmp_path / "out") == 0
    for shard in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(shard) as archive:
            archive.extractall(tmp_path / "back", filter="data")
    files = [path for path in root.rglob("*") if path.is_file()]
    for path in files:
        assert (tmp_path / "back" / path.relative_to(root)).read_bytes() == path.read_bytes()
    assert len(files) == sum(SPLITS.values())


def test_skipped_files_are_listed_with_reasons(tmp_path, capsys):
    root = tree(tmp_path / "x", {"cat": 3, "dog": 3})
    photo(root / "loose.png")
    (root / "cat" / "broken.jpg").write_bytes(b"no photo")
    (root / "cat" / "empty.jpg").touch()
    assert pack(root, tmp_path / "out", "--layout", "classes") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["photos"], result["shards"], result["skipped"]) == (6, 1, 3)
    with (tmp_path / "out" / "skipped.csv").open() as file:
        rows = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert rows == {
        "cat/broken.jpg": "not an image of a supported format",
        "cat/empty.jpg": "empty file",
        "loose.png": "it lies in no split or class",
    }


def test_photo_of_any_length_is_skipped(tmp_path):
    """What follows the picture takes no disk space, and would take all memory."""
    root = tree(tmp_path / "x", {"cat": 3, "dog": 3})
    photo(root / "cat" / "long.jpg")
    os.truncate(root / "cat" / "long.jpg", 10**13)
    assert pack(root, tmp_path / "out") == 0
    listed = (tmp_path / "out" / "skipped.csv").read_text()
    assert listed == "path,reason\ncat/long.jpg,more bytes than its picture could need\n"


def test_shards_have_the_size_asked_for(tmp_path):
    root = tree(tmp_path / "x", {"": 12}, size=(300, 300))  # 270 kB each
    assert pack(root, tmp_path / "out", "--shard-size", "1") == 0
    shards = sorted((tmp_path / "out").glob("*.tar"))
    assert [path.name for path in shards] == [f"unlabelled-{n:05}.tar" for n in range(4)]
    assert all(path.stat().st_size < 1_050_000 for path in shards)


@pytest.mark.parametrize("format", FORMATS)
def test_stopped_command_resumes_to_the_same_bytes(tmp_path, format, monkeypatch):
    root = tree(tmp_path / "x", {"train/cat": 6, "train/dog": 6}, size=(300, 300))
    words = ("--format", format, "--shard-size", "1")
    assert pack(root, tmp_path / "whole", *words) == 0
    original, written = writing.write_shard, []

    def killed(format, file, photos, class_names):
        written.append(file.name)
        if len(written) == 3:
            file.write_bytes(b"half of")
            raise OSError(28, "No space left on device")
        original(format, file, photos, class_names)

    monkeypatch.setattr("pipelines.sources.shards.packing.write_shard", killed)
    assert pack(root, tmp_path / "out", *words) == 2
    assert pack(root, tmp_path / "out", *words) == 0
    assert len(written) == len(set(written)) + 1  # the third alone is written twice
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_killed_process_resumes_to_the_same_bytes(tmp_path):
    root = tree(tmp_path / "x", {"": 60}, size=(300, 300))
    words = ["--images", str(root), "--shard-size", "1", "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    command = [sys.executable, "-m", "byol_tf.pack", *words, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    begun = time.monotonic()
    while not list(tmp_path.glob("out/unlabelled-*.tar")):
        assert process.poll() is None
        assert time.monotonic() - begun < HANG
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert main([*words, str(tmp_path / "out")]) == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has this disk that is full")
@pytest.mark.parametrize("format", FORMATS)
def test_full_disk_is_an_error_of_the_system(format):
    photos = [writing.PackedPhoto("a.jpg", None, bytes(100_000))]
    with pytest.raises(OSError, match="No space left on device"):
        writing.write_shard(format, Path("/dev/full"), photos, ())


def test_full_disk_ends_the_command_with_a_line(tmp_path, capfd, monkeypatch):
    def full(*given):
        raise OSError("photos-00000.tfrecord; No space left on device")

    monkeypatch.setattr("byol_tf.pack.__main__.Packing.write", full)
    out = tmp_path / "out"
    assert pack(tree(tmp_path / "x", {"": 3}), out) == 2
    assert capfd.readouterr().err == (
        f"--out {out}: can't be written: photos-00000.tfrecord; No space left on device. The same "
        "command keeps the shards that are complete\n"
    )


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda out: (out / "notes.txt").write_text("x"), "has other files; name a new folder"),
        (lambda out: (out / "shards.json").write_text("{"), "has a shards.json that can't be read"),
        (lambda out: (out / "shards.json").write_text('{"photos": "0"}'), "shards of other photos"),
    ],
)
def test_folder_of_other_files_is_refused(tmp_path, capfd, prepare, message):
    root, out = tree(tmp_path / "x", {"": 3}), tmp_path / "out"
    out.mkdir()
    prepare(out)
    before = digests(out)
    assert pack(root, out) == 2
    assert message in capfd.readouterr().err
    assert digests(out) == before


def test_wrong_arguments_are_errors(tmp_path, capfd):
    assert pack(tmp_path / "none", tmp_path / "out") == 2
    assert "--images: there is no folder" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        pack(tmp_path, tmp_path / "out", "--shard-size", "0")
    assert "expected a whole number of megabytes" in capfd.readouterr().err
    assert os.listdir(tmp_path) == []


def test_parquet_opens_in_hugging_faces_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    root = tree(tmp_path / "x", SPLITS)
    assert pack(root, tmp_path / "out", "--format", "parquet") == 0
    table = datasets.Dataset.from_parquet(
        str(tmp_path / "out" / "train-00000.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert table.features["label"].names == ["cat", "dog"]
    assert isinstance(table.features["image"], datasets.Image)
    assert table["label"][:] == [0] * 5 + [1] * 6
    assert table[0]["image"].size == (12, 10)


CONFIG = {
    "views": {"size": 32},
    "encoder": {"name": "convnet", "width": 0.25},
    "projector": {"hidden_size": 16, "output_size": 8},
    "predictor": {"hidden_size": 16},
    "optimizer": {"base_learning_rate": 0.01},
    "training": {"epochs": 1, "batch_size": 8},
    "devices": {"strategy": "cpu"},
}


@pytest.mark.long
def test_weights_are_those_of_the_folder_to_the_bit(tmp_path):
    """Three steps from each, with photos of several sizes, which are read in each epoch."""
    from byol_tf.config.loading import load_config
    from byol_tf.train.experiment import Experiment

    root = tmp_path / "x"
    for name in ("train/cat", "train/dog"):
        for number in range(14):
            photo(root / name / f"{name[6:]}_{number}.jpg", size=(40 + number, 44))
    roots = {"folder": root}
    for format in FORMATS:
        roots[format] = tmp_path / format
        assert pack(root, roots[format], "--format", format, "--shard-size", "1") == 0
    weights = {}
    for name, folder in roots.items():
        source = "folder" if name == "folder" else "shards"
        config = CONFIG | {
            "name": "tiny",
            "data": {"source": source, "root": str(folder), "pretrain": "train"},
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        experiment = Experiment(load_config(tmp_path / "config.json"), tmp_path / f"run-{name}")
        experiment.run(verbose=False)
        digest = hashlib.sha256()
        for array in experiment.model.get_weights():
            digest.update(np.ascontiguousarray(array).data)
        weights[name] = digest.hexdigest()
    assert len(set(weights.values())) == 1, weights
