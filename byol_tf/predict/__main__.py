"""`python -m byol_tf.predict`: predicts the classes of a folder of photos."""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("predict")


import argparse
import logging
from pathlib import Path

from byol_tf import __version__
from byol_tf.command_line import (
    add_json_option,
    add_path,
    check_writable,
    command_parser,
    command_text,
    ends_with_exit_code,
    print_json,
)
from byol_tf.devices import prepare_environment
from byol_tf.embed.photos import EmbeddedPhotos, add_photo_arguments
from byol_tf.embed.store import Store, default_folder
from byol_tf.errors import ProtocolError
from byol_tf.logs import ProgressLog, counted, wrapped
from byol_tf.predict.classifier_files import classifier_files
from pipelines.sources import open_flat_images
from pipelines.sources.remote import Location

logger = logging.getLogger(__name__)


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, 2 with a message if classifier, photos or output folder are wrong, 128 + n
        after signal n. What was predicted until then is stored, and the same command resumes.
    """
    options = _parser().parse_args(arguments)
    print_json(_run(options, arguments), options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "predict",
        description="Predicts the class of each photo below a folder. Changes no photo.",
    )
    add_path(
        parser,
        "--classifier",
        "a folder that evaluate finetune --export or embed --few --export has made",
        required=True,
    )
    add_photo_arguments(parser, "predictions", "classifier")
    add_json_option(parser)
    return parser


def _run(options: argparse.Namespace, arguments: list[str]) -> dict:
    """Runs the command; returns the facts that it prints last."""
    classifier, classes = classifier_files(options.classifier)

    def output_folder(images: Location) -> Path:
        return Path(options.out or default_folder("predictions", classifier.digest, images))

    images = open_flat_images(
        options.images, "--images", output_folder, ProgressLog(logger), classifier.pixels
    )
    out = output_folder(images.folder)
    check_writable(out, "--out")
    store = Store(out, classifier.digest, images.folder, "probabilities")
    facts = {
        "classifier": str(classifier.path),
        "classes": classes,
        "byol_tf": __version__,
        "command": command_text("predict", arguments),
    }
    prepare_environment()
    from byol_tf.predict.results import write_class_sheet, write_table

    with store.locked():
        predicted = EmbeddedPhotos(images, classifier, store, facts)
        predicted.embed_missing()
        images.save_index()
        outputs = predicted.embeddings.shape[1]
        if outputs != len(classes):
            raise ProtocolError(
                f"--classifier {classifier.path}: expected a probability for each of the "
                f"{len(classes)} classes in classes.json; received {outputs} numbers"
            )
        table, sheet = out / "predictions.csv", out / "sheet.png"
        write_table(table, predicted, classes)
        counts = write_class_sheet(sheet, predicted, classes)
    print(f"\n  {counted(len(predicted.photos), 'photo')} below {images.folder}:")
    for name, count in counts.items():
        print(f"  {count:>7,}  {name}")
    for line in predicted.skipped_lines():
        print(f"  {line}")
    print(wrapped(f"{table}   class, probability and second class of each photo", indent=4))
    print(wrapped(f"{sheet}   a row for each class, the least certain first", indent=4))
    print()
    return {
        "out": str(out),
        "photos": len(predicted.photos),
        "reused": predicted.reused,
        "skipped": len(predicted.skipped),
        "counts": counts,
    }
