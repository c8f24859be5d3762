"""Exported classifiers: files, verification, card and code."""

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from byol_tf.errors import OutputError, ProtocolError
from byol_tf.export import classifier as export
from byol_tf.export.classifier_folder import check_classifier_folder, read_classes
from byol_tf.export.formats import FORMAT_NAMES
from byol_tf.export.writing import WRITERS
from byol_tf.models.inference import inference_model
from byol_tf.runs.accuracy import Accuracy
from tests.helpers.waiting import HANG

CLASSES = ["dog, wet", "été"]
FACTS = export.ClassifierFacts("Pets", "Made here.", Accuracy(0.8, 30), "on test images")


def tiny_classifier() -> keras.Model:
    """A classifier from uint8 images to logits, with an encoder of 8 x 8 pixels."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 3))
    encoder = keras.Model(pixels, keras.layers.Dense(4)(keras.layers.Flatten()(pixels)))
    inference = inference_model(encoder, 8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    head = keras.layers.Dense(len(CLASSES), dtype="float32", name="head")
    return keras.Model(inference.input, head(inference.output))


def photos(count: int) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (20, 30, 3), np.uint8) for _ in range(count)]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_each_format_has_a_writer_for_encoders_and_one_for_classifiers():
    assert export.CLASSIFIER_WRITERS.keys() == WRITERS.keys() == set(FORMAT_NAMES)


def test_keras_file_gives_the_softmax_of_the_logits(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "FORMAT_NAMES", ("keras",))
    model, images = tiny_classifier(), photos(3)
    files = export.export_classifier(model, CLASSES, tmp_path, images, FACTS)
    assert files == ["classifier.keras"]
    assert read_classes(tmp_path / "classes.json") == CLASSES
    exported = keras.saving.load_model(tmp_path / "classifier.keras")
    batch = np.stack(images)
    np.testing.assert_allclose(exported(batch), softmax(model(batch).numpy()), atol=1e-6)
    (measured,) = json.loads((tmp_path / "verification.json").read_text()).values()
    assert measured["difference"] < 1e-3
    assert measured["same_class"] == 1.0
    card = (tmp_path / "README.md").read_text()
    assert "80.0% (62.7 to 90.5) on test images" in card
    assert "2 classes: `dog, wet`, `été`" in card


@pytest.mark.long
def test_each_format_has_the_classes_and_its_code_runs(tmp_path):
    import onnx
    import tensorflow as tf

    files = export.export_classifier(tiny_classifier(), CLASSES, tmp_path, photos(30), FACTS)
    assert files == [
        "classifier/1",
        "classifier.keras",
        "classifier-float32.tflite",
        "classifier-float16.tflite",
        "classifier.onnx",
    ]
    saved = tf.saved_model.load(tmp_path / "classifier" / "1")
    assert [name.decode() for name in saved.classes().numpy()] == CLASSES
    (prop,) = onnx.load(tmp_path / "classifier.onnx").metadata_props
    assert (prop.key, json.loads(prop.value)) == ("classes", CLASSES)
    from PIL import Image

    Image.fromarray(photos(1)[0]).save(tmp_path / "photo.jpg")
    code = re.findall(r"```python\n(.*?)```", (tmp_path / "USAGE.md").read_text(), re.DOTALL)
    assert len(code) == 5
    for snippet in code:
        done = subprocess.run(
            [sys.executable, "-c", snippet],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=HANG,
            check=True,
        )
        assert done.stdout.rpartition(" ")[0] in CLASSES


@pytest.mark.long
def test_classifier_that_differs_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "FORMAT_NAMES", ("keras",))
    monkeypatch.setattr(export, "_EXACT", -1.0)
    with pytest.raises(OutputError, match="no file passed its verification"):
        export.export_classifier(tiny_classifier(), CLASSES, tmp_path / "out", photos(1), FACTS)
    assert list((tmp_path / "out").iterdir()) == []


def test_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(OutputError, match="expected a new or empty folder"):
        check_classifier_folder(tmp_path)
    with pytest.raises(OutputError, match="is no folder"):
        check_classifier_folder(tmp_path / "README.md")
    check_classifier_folder(tmp_path / "new")


def test_existing_classifier_is_not_replaced(tmp_path):
    (tmp_path / "classes.json").write_text("[]")
    with pytest.raises(OutputError, match="it holds a classifier, which isn't replaced"):
        export.export_classifier(tiny_classifier(), CLASSES, tmp_path, photos(1), FACTS)
    assert [file.name for file in tmp_path.iterdir()] == ["classes.json"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        "[",
        '["a"]',
        '["a", 1]',
        '["a", "a"]',
        "{}",
        r'["\u001b]0;a", "b"]',
        r'["\ud800", "b"]',
    ],
)
def test_wrong_classes_are_named(tmp_path, content):
    file = Path(tmp_path / "classes.json")
    if content is not None:
        file.write_text(content)
    with pytest.raises(ProtocolError, match="expected the names of"):
        read_classes(file)
