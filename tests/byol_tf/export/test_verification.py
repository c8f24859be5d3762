"""Verification of exported files: measurements, tolerances, and the process without byol_tf."""

import dataclasses
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from PIL import Image

from byol_tf.errors import VerificationError
from byol_tf.export.formats import FORMAT_NAMES, FORMATS, INT8_FILE, Snippet, select_formats
from byol_tf.export.sample_images import Samples, centre_square, sample_photos
from byol_tf.export.verification import Verification, same_neighbours, verify
from byol_tf.export.writing import WRITERS
from byol_tf.models.inference import inference_model
from byol_tf.models.networks.batch_norm import BatchNorm
from tests.helpers.linked_packages import link_packages

SIZE = 16
TIMEOUT = 600.0
"""Seconds; only a guard against hanging."""


def small_model(normalization: type = keras.layers.BatchNormalization) -> keras.Model:
    images = keras.Input((SIZE, SIZE, 3))
    features = keras.layers.Conv2D(4, 3)(images)
    features = keras.layers.GlobalAveragePooling2D()(normalization()(features))
    return inference_model(keras.Model(images, features), SIZE, (0.5,) * 3, (0.25,) * 3)


def write(name: str, model: keras.Model, folder) -> None:
    WRITERS[name](model, folder, [centre_square(photo, SIZE) for photo in sample_photos()])


def test_neighbours_are_searched_among_a_hundred_rows():
    """Row 150 is the nearest to row 0 of all, but in another set of a hundred."""
    rng = np.random.default_rng(0)
    expected = rng.normal(size=(200, 8))
    expected[150] = 1.01 * expected[0]
    outputs = expected.copy()
    outputs[150] = rng.normal(size=8)
    directions = [
        rows[100:] / np.linalg.norm(rows[100:], axis=1, keepdims=True)
        for rows in (outputs, expected)
    ]
    kept = np.equal(*[(rows @ rows.T - 2.0 * np.eye(100)).argmax(axis=1) for rows in directions])
    assert 90 <= kept.sum() < 100
    assert same_neighbours(outputs, expected) == (100 + kept.sum()) / 200


def test_lost_neighbours_are_a_failure():
    (int8,) = [export_format for export_format in FORMATS if export_format.file == INT8_FILE]
    verification = Verification(
        INT8_FILE, int8.title, 1.0, 1.0, 0.1, 0.99, same_neighbour=0.91, photos=12, images=300
    )
    assert verification.failures(int8.tolerance) == [
        "91.0% of 300 images keep their nearest neighbour; at least 95% passes"
    ]
    for changes in ({"same_neighbour": 0.95}, {"same_neighbour": None, "images": 12}):
        assert not dataclasses.replace(verification, **changes).failures(int8.tolerance)


def test_values_that_are_not_finite_are_failures():
    (onnx,) = select_formats(("onnx",))
    nan = float("nan")
    verification = Verification("encoder.onnx", "ONNX", 1.0, 1.0, nan, nan, nan, 12, 300)
    assert len(verification.failures(onnx.tolerance)) == 3


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import byol_tf", "byol_tf"),
        ("import pipelines.sources", "pipelines"),
        ("import tensorflow", "tensorflow"),  # which ONNX does without
        ("import no_such_package", "No module named 'no_such_package'"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_snippet_that_needs_another_package_fails(tmp_path, code, message):
    (onnx,) = select_formats(("onnx",))
    changed = dataclasses.replace(onnx, snippet=Snippet(code, "onnxruntime pillow", ()))
    samples = Samples(sample_photos()[:1])
    with pytest.raises(VerificationError, match=f"onnx: .*{message}"):
        verify([changed], tmp_path, SIZE, samples, np.zeros((1, 4), np.float32))


def test_keras_file_with_a_layer_of_byol_tf_fails(tmp_path):
    model = small_model(BatchNorm)
    write("keras", model, tmp_path)
    samples = Samples(sample_photos()[:1])
    expected = model.predict_on_batch(samples.photos[0][None])
    with pytest.raises(VerificationError, match=r"keras: .*BatchNorm"):
        verify(select_formats(("keras",)), tmp_path, SIZE, samples, expected)


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_files_load_with_only_the_packages_of_their_snippet(tmp_path, name):
    """In a stricter environment than that of `verify`: nothing else is on the path. One process has
    all variants of a format, each in a function, as it takes seconds to begin."""
    model, photo = small_model(), sample_photos()[0]
    write(name, model, tmp_path)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    expected = model.predict_on_batch(photo[None])[0]
    formats = select_formats((name,))
    packages = tmp_path / "packages"
    link_packages(formats[0].snippet.install.split(), packages)
    linked = {path.name for path in packages.iterdir()}
    assert ("tensorflow" in linked) == formats[0].uses_tensorflow
    assert not linked & {"byol_tf", "pipelines"}
    code = (
        f"import importlib.util, sys\nsys.path.append({str(packages)!r})\n"
        "assert importlib.util.find_spec('byol_tf') is None\n"
    )
    for number, export_format in enumerate(formats):
        argument = (
            "open('photo.png', 'rb').read()"
            if export_format.snippet.takes_bytes
            else "Image.open('photo.png')"
        )
        body = (
            f"{export_format.code(SIZE)}\n"
            f"import numpy as np\nnp.save('{number}.npy', represent({argument}))\n"
        )
        code += f"def case_{number}():\n{textwrap.indent(body, '    ')}\ncase_{number}()\n"
    command = [sys.executable, "-I", "-S", "-c", code]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=TIMEOUT)
    for number, export_format in enumerate(formats):
        difference = np.abs(np.load(tmp_path / f"{number}.npy") - expected).max()
        assert difference <= export_format.tolerance.difference * np.abs(expected).max()
