"""Export of image classifiers: each file verified, with the names of its classes, card and usage.

```
DIR/
  classes.json        names of the classes, in the order of the probabilities
  classifier/1/       SavedModel, with the names as its signature `classes`
  classifier.keras
  classifier-float32.tflite, classifier-float16.tflite    with the extra "export"
  classifier.onnx     with the names in its metadata; with the extra "export"
  README.md, USAGE.md, verification.json
```
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from byol_tf import __version__
from byol_tf.errors import OutputError, VerificationError, code_span
from byol_tf.export.classifier_folder import CLASSES_FILE, check_classifier_folder
from byol_tf.export.formats import (
    CLASSIFIER_FORMATS,
    FORMAT_NAMES,
    ExportFormat,
    missing_packages,
    select_formats,
)
from byol_tf.export.litert import write_float_litert
from byol_tf.export.model_card import front_matter, input_words
from byol_tf.export.onnx import write_onnx
from byol_tf.export.sample_images import reduce_image, sample_photos
from byol_tf.export.saved_model import split_export, staging_folder, write_saved_model
from byol_tf.export.usage import array_note, usage_page
from byol_tf.export.verification import FILE_NAME, file_size, run_snippets
from byol_tf.export.writing import failures_of
from byol_tf.models.inference import exported_form
from byol_tf.models.safe_loading import check_keras_file
from byol_tf.runs.accuracy import Accuracy
from byol_tf.runs.encoder_input import write_input
from byol_tf.runs.files import write_atomically
from pipelines.sources import RGB, PixelFormat

_COMPARED = 100
"""Most images of the user's that files are compared on."""
_EXACT, _ROUNDED = 1e-3, 0.2
"""Largest difference of a probability that passes. LiteRT's photos are resized to whole numbers,
and an uncertain probability then moves by some percent."""
_SAME_CLASS, _MIN_IMAGES = 0.95, 20
"""Fraction of the images whose most probable class has to stay, if there are that many images."""

_INTRODUCTION = """# Using this classifier

Each snippet runs in this folder on a file `{file}`; none needs byol_tf. All return the
probability of each class in `classes.json`, in its order. A probability says how sure the network
is, not how often it is right: see README.md.

"""
_EXIF = """\
Apply a photo's EXIF orientation before it is classified, as `ImageOps.exif_transpose` does below.
TensorFlow, LiteRT and ONNX don't, and neither does `serve_bytes`."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassifierFacts:
    """Facts of a classifier for its model card.

    Attributes:
        name: heading of the card.
        made: how it was made, as sentences in Markdown.
        accuracy: on images that it hasn't learned from; None if it isn't known.
        accuracy_note: on which images, as a clause.
    """

    name: str
    made: str
    accuracy: Accuracy | None
    accuracy_note: str


@dataclass(frozen=True)
class ClassifierVerification:
    """Measurements of one exported file, used in one way.

    Attributes:
        file: name of the file or folder.
        title: that of the `ExportFormat`.
        megabytes: size in 10^6 bytes.
        milliseconds: median time of one photo on this machine's CPU.
        difference: largest difference of a probability from the original classifier's.
        same_class: fraction of the images whose most probable class is the same.
        photos: number of photos of odd sizes.
        images: number of the user's images.
    """

    file: str
    title: str
    megabytes: float
    milliseconds: float
    difference: float
    same_class: float
    photos: int
    images: int

    def failures(self) -> list[str]:
        """Returns a line for each measurement that doesn't pass; NaN doesn't."""
        limit = _ROUNDED if self.file.endswith(".tflite") else _EXACT
        failures = []
        if not self.difference <= limit:
            failures.append(
                f"largest difference of a probability {self.difference:.2g}; at most {limit:g} "
                "passes"
            )
        if self.images >= _MIN_IMAGES and not self.same_class >= _SAME_CLASS:
            failures.append(
                f"{self.same_class:.1%} of the images keep their class; at least "
                f"{_SAME_CLASS:.0%} passes"
            )
        return failures


def export_classifier(
    classifier: keras.Model,
    classes: Sequence[str],
    folder: Path,
    images: Sequence[np.ndarray],
    facts: ClassifierFacts,
    pixels: PixelFormat = RGB,
) -> list[str]:
    """Writes a classifier in each format whose packages are installed, and verifies each file.

    Each is loaded in a fresh process without byol_tf and compared with the classifier; one that
    differs isn't kept.

    Args:
        classifier: functional, from images `[N, H, W, channels]` of any size to logits
            `[N, classes]`: an inference model (see `models/inference.py`) with a head.
        classes: names of the classes.
        folder: new or empty.
        images: images of the user's to compare on, `[H, W, channels]` each; the first 100 are
            used.
        facts: for the card.
        pixels: channels, depth and range of the images.

    Returns:
        The files that were written, relative to the folder.

    Raises:
        OSError: if a file can't be written.
        OutputError: if no file passed, or the folder isn't empty.
        ValueError: if the model is of another form.
    """
    check_classifier_folder(folder)
    model = _with_probabilities(classifier)
    size = split_export(model)[1].input_shape[1]
    photos = sample_photos(pixels)
    compared = [*photos, *(reduce_image(image, 2 * size) for image in images[:_COMPARED])]
    with tf.device("CPU"):  # a GPU may round convolutions to TF32
        expected = np.concatenate([model(image[None], training=False) for image in compared])
    missing = missing_packages(FORMAT_NAMES)
    verifications: list[ClassifierVerification] = []
    with staging_folder(folder) as staging:
        write_atomically(staging / CLASSES_FILE, json.dumps(list(classes), indent=1) + "\n")
        for name in FORMAT_NAMES:
            if name in missing:
                logger.info(
                    "%s: not written; it needs pip install %s", name, " ".join(missing[name])
                )
                continue
            formats = select_formats((name,), pixels, CLASSIFIER_FORMATS)
            try:
                with failures_of(name):
                    CLASSIFIER_WRITERS[name](model, staging, classes)
                milliseconds, outputs = run_snippets(formats, staging, size, compared)
            except VerificationError as error:
                logger.warning("not exported: %s", error)
                continue
            measured = [
                _compare(export_format, staging, time, output, expected, len(photos))
                for export_format, time, output in zip(formats, milliseconds, outputs, strict=True)
            ]
            verifications += _passed(measured)
        files = list(dict.fromkeys(each.file for each in verifications))
        if not files:
            raise OutputError(f"--export {folder}: no file passed its verification; none was kept")
        for file in (*files, CLASSES_FILE):
            (staging / file).rename(folder / file)
    write_input(folder, pixels)
    formats = [
        each
        for each in select_formats(FORMAT_NAMES, pixels, CLASSIFIER_FORMATS)
        if each.file in files
    ]
    recorded = {each.title: asdict(each) for each in verifications}
    write_atomically(folder / FILE_NAME, json.dumps(recorded, indent=2) + "\n")
    introduction = _INTRODUCTION.format(file="photo.jpg" if pixels.is_rgb else "photo.npy")
    introduction += _EXIF if pixels.is_rgb else array_note(pixels)
    write_atomically(folder / "USAGE.md", usage_page(introduction, formats, {}, size, pixels))
    write_atomically(
        folder / "README.md", _card(classes, size, facts, formats, verifications, pixels)
    )
    return list(dict.fromkeys(each.path for each in formats))


def _with_probabilities(classifier: keras.Model) -> keras.Model:
    plain = exported_form(classifier)
    softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
    return keras.Model(plain.input, softmax(plain.output), name="classifier")


def _write_keras(model: keras.Model, folder: Path, classes: Sequence[str]) -> None:
    model.save(folder / "classifier.keras")
    check_keras_file(folder / "classifier.keras")


CLASSIFIER_WRITERS: dict[str, Callable[[keras.Model, Path, Sequence[str]], None]] = {
    "saved_model": lambda model, folder, classes: write_saved_model(
        model, folder / "classifier", classes
    ),
    "keras": _write_keras,
    "litert": lambda model, folder, _: write_float_litert(
        model, folder, "classifier", "probabilities"
    ),
    "onnx": lambda model, folder, classes: write_onnx(
        model, folder / "classifier.onnx", "probabilities", {"classes": json.dumps(list(classes))}
    ),
}
"""Name of a format -> what writes its files, given the model, a folder and the classes' names."""


def _compare(
    export_format: ExportFormat,
    folder: Path,
    milliseconds: float,
    outputs: np.ndarray,
    expected: np.ndarray,
    photos: int,
) -> ClassifierVerification:
    same = outputs[photos:].argmax(axis=1) == expected[photos:].argmax(axis=1)
    return ClassifierVerification(
        file=export_format.file,
        title=export_format.title,
        megabytes=file_size(folder / export_format.file) / 1e6,
        milliseconds=milliseconds,
        difference=float(np.abs(outputs - expected).max()),
        same_class=float(same.mean()) if len(same) else 1.0,
        photos=photos,
        images=len(same),
    )


def _passed(verifications: list[ClassifierVerification]) -> list[ClassifierVerification]:
    """Returns the measurements of the files that passed in all their ways; logs the others."""
    failed = set()
    for each in verifications:
        for failure in each.failures():
            logger.warning("not exported: %s: %s: %s", each.file, each.title, failure)
            failed.add(each.file)
    return [each for each in verifications if each.file not in failed]


def _card(
    classes: Sequence[str],
    size: int,
    facts: ClassifierFacts,
    formats: Sequence[ExportFormat],
    verifications: Sequence[ClassifierVerification],
    pixels: PixelFormat,
) -> str:
    metrics = []
    accuracy = "Its accuracy isn't known."
    if facts.accuracy is not None:
        metrics = [("accuracy", facts.accuracy_note, facts.accuracy.fraction)]
        accuracy = (
            f"Accuracy {facts.accuracy} {facts.accuracy_note}; in brackets the 95% interval, from "
            f"{facts.accuracy.count:,} images."
        )
    by_title = {each.title: each for each in verifications}
    rows = []
    for export_format in formats:
        each = by_title[export_format.title]
        rows.append(
            f"| `{each.file}`: {each.title} | {each.megabytes:.2f} | {each.milliseconds:.2f} | "
            f"{each.difference:.1e} | {each.same_class:.1%} |"
        )
    names = ", ".join(code_span(name) for name in classes)
    return "\n".join(
        [
            front_matter(
                facts.name, ["image-classification"], metrics, "images", "image-classification"
            ),
            f"# {facts.name}\n",
            f"An image classifier of {len(classes)} classes: {names}.\n",
            facts.made + "\n",
            f"* Input: {input_words(pixels)}. Output: the probability of each "
            "class in `classes.json`, float32 `[N, classes]`.",
            f"* The largest centred square is resized to {size} px (bilinear, antialiased); "
            "normalisation is inside.",
            "* Apply the EXIF orientation of a photo before it is classified.\n",
            "## Accuracy\n",
            accuracy + "\n",
            "## Files\n",
            "| file | MB | ms per photo | largest difference | same class |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "Each was loaded in a process without byol_tf and compared with the classifier as it "
            f"was trained, on a CPU: on {verifications[0].photos} photos of odd sizes and "
            f"{verifications[0].images} of the images. Differences are of a probability.\n",
            "Tested code that uses each of them: [USAGE.md](USAGE.md).\n",
            "## Limits and license\n",
            "* It knows these classes only: a photo of anything else gets one of them, perhaps "
            "with a high probability.",
            "* No license was chosen: the owner of the weights chooses one and replaces `unknown` "
            "at the top.",
            f"* Written by byol_tf {__version__}.",
            "",
        ]
    )
