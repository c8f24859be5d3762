"""Export of the classifier that was fitted on a few labels, with its frozen encoder."""

from pathlib import Path

import keras

from byol_tf.embed.few_shot import FewShotResult
from byol_tf.embed.photos import EmbeddedPhotos
from byol_tf.errors import EmbedError
from byol_tf.export.classifier import ClassifierFacts, export_classifier

_COMPARED = 100


def export_few_shot(
    embedded: EmbeddedPhotos, labels: dict[int, str], result: FewShotResult, folder: Path
) -> list[str]:
    """Exports encoder and logistic regression as one classifier.

    Args:
        embedded: the photos, and the encoder.
        labels: from row to label.
        result: of `fit_few_shot` with these labels.
        folder: see `classifier_folder.check_classifier_folder`.

    Returns:
        The files that were written, relative to the folder.

    Raises:
        EmbedError: if the encoder isn't made of layers that can be exported.
        OutputError: if no file passed its verification.
    """
    encoder = embedded.model
    head = keras.layers.Dense(len(result.classes), dtype="float32", name="head")
    classifier = keras.Model(encoder.input, head(encoder.output))
    head.set_weights([result.kernel, result.bias])
    estimate = result.estimate
    facts = ClassifierFacts(
        name=f"Classifier of {Path(str(embedded.images.folder)).name}",
        made=f"Logistic regression on the representations of a frozen encoder, fitted on "
        f"{len(labels)} labelled photos.",
        accuracy=None if estimate is None else estimate.accuracy,
        accuracy_note="on labels that were held out in turn (cross-validation)",
    )
    photos = [embedded.photos[row] for row in sorted(labels)[:_COMPARED]]
    images = [pixels for _, pixels, _ in embedded.images.read_each(photos) if pixels is not None]
    try:
        pixels = embedded.images.pixels
        return export_classifier(classifier, result.classes, folder, images, facts, pixels)
    except ValueError as error:
        raise EmbedError(f"--export: {embedded.encoder.path}: {error}") from error
