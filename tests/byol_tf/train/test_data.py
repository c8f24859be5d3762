"""Images of a run: what is logged about them, and what their files may do to the run."""

import csv
import io
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config
from byol_tf.embed.store import Store
from byol_tf.runs.folder import RunFolder
from byol_tf.train.data import CopiesSearch, open_images
from byol_tf.train.experiment import Experiment
from byol_tf.train.input_watchdog import InputWatchdog
from byol_tf.train.multi_worker import Workers
from byol_tf.train.plan import make_plan
from pipelines.sources import Source, SourceError, plan_source
from tests.helpers.small_run import CONFIG


def photo(path: Path, seed: int, size: tuple[int, int] = (24, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(small).resize(size).save(path, quality=95)


@pytest.fixture
def leaky(tmp_path) -> Path:
    """Two classes of 10 photos, 4 of them also among the test photos, and one broken."""
    root = tmp_path / "photos"
    for label, name in enumerate(("cat", "dog")):
        for number in range(10):
            size = (24 + number, 24)
            photo(root / "training" / name / f"{number}.jpg", 100 * label + number, size)
        photo(root / "valid" / name / "own.jpg", 100 * label + 50)
        for number in range(2):
            copy = root / "valid" / name / f"copy{number}.jpg"
            shutil.copy(root / "training" / name / f"{number}.jpg", copy)
    (root / "training" / "cat" / "broken.jpg").write_bytes(b"<html>")
    return root


def config(photos: Path, **data: object) -> Config:
    folder = photos.parent / "config.json"
    section = {"source": "folder", "root": str(photos), **data}
    folder.write_text(
        json.dumps(CONFIG | {"data": section, "training": {"epochs": 1, "batch_size": 8}})
    )
    return load_config(folder)


def opened(config: Config, folder: Path) -> Source:
    workers = Workers(tf.distribute.get_strategy())
    return open_images(config, RunFolder(folder), workers, InputWatchdog(lambda text: None))


def test_plan_names_classes_with_their_counts(leaky, tmp_path):
    lines = make_plan(config(leaky, max_unreadable_fraction=0.1), RunFolder(tmp_path)).lines
    assert ("classes", "cat 14, dog 13") in lines  # the broken one counts until it is opened
    assert ("", "splits: test from valid/; train from training/") in lines


def test_findings_about_photos_are_logged(leaky, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = opened(config(leaky, max_unreadable_fraction=0.1), tmp_path / "run")
    assert source.leaked is None  # until the photos have been compared
    CopiesSearch(source).finish()
    assert source.leaked == 4
    for line in (
        "4 of 6 test photo(s) are also among the photos to learn from, so accuracies are too high",
        "4 file(s) are exact copies of others",
        "1 photo(s) can't be read and are skipped (skipped.csv): training/cat/broken.jpg: "
        "not an image of a supported format",
    ):
        assert line in caplog.messages


def test_too_many_unreadable_photos_are_listed_next_to_the_run(leaky, tmp_path):
    with pytest.raises(
        SourceError,
        match=r"1 of 27 files can't be read.*data\.max_unreadable_fraction=0\.04 skips them.*"
        r"run-skipped\.csv lists them all",
    ):
        opened(config(leaky), tmp_path / "run")
    with (tmp_path / "run-skipped.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["training/cat/broken.jpg"]
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_run_reads_what_the_check_admits_and_reports_leaks(leaky, tmp_path):
    """A JPEG that TensorFlow can't decode once ended each run that met it."""
    whole = io.BytesIO()
    Image.open(leaky / "valid" / "cat" / "own.jpg").save(whole, "JPEG")
    for name in ("cat", "dog"):
        padded = leaky / "training" / name / "padded.jpg"
        padded.write_bytes(whole.getvalue()[:-2] + bytes(512))
    experiment = Experiment(config(leaky, max_unreadable_fraction=0.1), tmp_path / "run")
    result = experiment.run(verbose=0)
    assert result["leaked_test_images"] == 4
    report = (tmp_path / "run" / "report.html").read_text()
    assert "4 test photos are also among the photos to learn from" in report


def test_photos_in_outputs_of_byol_tf_are_passed_over(tmp_path):
    """They are recognised by files that the commands write, not by what their folders are called."""
    run, store = RunFolder(tmp_path / "a" / "1"), Store(tmp_path / "b", "digest", tmp_path)
    for file in (run.config, run.environment, store.about, store.index):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    for folder in (run.figures, store.root, tmp_path / "runs"):
        for number in range(2):
            photo(folder / f"{number}.png", number)
    plan = plan_source("folder", root=str(tmp_path))
    assert plan.counts["pretrain"] == 2
    assert "passed over: 2 folder(s) that byol_tf wrote (a/1, b)" in plan.notes
