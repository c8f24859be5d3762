"""Predicted classes of a folder of photos."""

import csv
import json
import os

import keras
import numpy as np
import pytest
from PIL import Image

from byol_tf.predict.__main__ import main


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier by brightness: dark, grey or bright."""
    folder = tmp_path_factory.mktemp("classifier")
    images = keras.Input((None, None, 3), dtype="uint8")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    head = keras.layers.Dense(3, "softmax")
    model = keras.Model(images, head(mean))
    head.set_weights([np.tile([[-4.0, 0.0, 4.0]], (3, 1)), np.array([4.0, 0.5, -8.0])])
    model.save(folder / "classifier.keras")
    (folder / "classes.json").write_text('["dark", "grey", "bright"]')
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, level in (("night", 0), ("=dusk", 90), ("noon", 255)):
        Image.new("RGB", (20, 12), (level,) * 3).save(folder / f"{name}.png")
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


def test_table_sheet_and_skipped_photos(classifier, photos, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--classifier", str(classifier), "--images", str(photos), "--out", str(out)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert result["counts"] == {"dark": 1, "grey": 1, "bright": 1}
    assert (result["photos"], result["skipped"], result["reused"]) == (3, 1, 0)
    assert "broken.jpg: " in printed
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["class"]) for row in rows] == [
        ("./=dusk.png", "grey"),
        ("night.png", "dark"),
        ("noon.png", "bright"),
    ]
    assert all(float(row["probability"]) > float(row["second_probability"]) for row in rows)
    assert rows[0]["second_class"] == "dark"
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 100
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["reused"] == 3


def test_saved_model_finds_the_classes_above_it(classifier, photos, tmp_path, capsys):
    folder = tmp_path / "served"
    model = keras.saving.load_model(classifier / "classifier.keras")
    model.export(folder / "classifier" / "1", verbose=False)
    (folder / "classes.json").write_text('["a", "b", "=A1"]')
    out = tmp_path / "out"
    assert main(["--classifier", str(folder), "--images", str(photos), "--out", str(out)]) == 0, (
        capsys.readouterr()
    )
    assert "noon.png,'=A1," in (out / "predictions.csv").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "classes.json").unlink(),
            "classes.json: expected the names of the classes",
        ),
        (
            lambda folder: (folder / "classes.json").write_text('["a", "b"]'),
            "expected a probability for each of the 2 classes in classes.json; received 3 numbers",
        ),
        (
            lambda folder: (folder / "classifier.keras").unlink(),
            "expected a folder that evaluate finetune --export or embed --few --export has made",
        ),
        (
            lambda folder: (folder / "classifier.keras").write_bytes(b"no model"),
            "--classifier ",
        ),
        (
            lambda folder: os.truncate(folder / "classifier.keras", 10**13),
            "classifier.keras: can't be read: it has 10,000.0 GB",
        ),
    ],
)
def test_what_is_no_classifier_is_named(classifier, photos, tmp_path, capsys, change, message):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("classifier.keras", "classes.json"):
        (folder / name).write_bytes((classifier / name).read_bytes())
    change(folder)
    out = tmp_path / "out"
    assert main(["--classifier", str(folder), "--images", str(photos), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error and "--encoder" not in error
