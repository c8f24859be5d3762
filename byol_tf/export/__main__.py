"""`python -m byol_tf.export`: a run's newest checkpoint in the formats of others, each proven where
byol_tf isn't."""

import argparse
import contextlib
import dataclasses
import os
import sys
from pathlib import Path

from byol_tf.config.loading import load_config
from byol_tf.devices import prepare_environment
from byol_tf.errors import ConfigError, ProtocolError, RunFolderError
from byol_tf.export.formats import FORMATS, OF_EVERY_RUN, missing_packages
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.summary import RunFacts, read_facts

_USAGE_ERROR, _TOO_FAR = 2, 1


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code.

    0; 1 if a file isn't near enough to the run's own encoder, or can't be used where byol_tf isn't,
    and was left out; 2 with a message and nothing written if the run can't be exported.
    """
    options = _parser().parse_args(arguments)
    formats = _formats(options.formats)
    folder = RunFolder(Path(options.run))
    try:
        _check(options, formats)
        facts = read_facts(folder)
        facts = dataclasses.replace(facts, config=load_config(folder.config, options.overrides))
        return _export(facts, folder, formats)
    except (ConfigError, RunFolderError, ProtocolError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m byol_tf.export",
        description="Exports the encoder of a run. Each file is loaded again where byol_tf isn't "
        "and compared with the run's own encoder.",
    )
    parser.add_argument(
        "--run",
        metavar="DIR",
        required=True,
        help="a run folder: its newest checkpoint; the files go to DIR/export",
    )
    parser.add_argument(
        "--format",
        nargs="+",
        choices=(*FORMATS, "all"),
        default=list(OF_EVERY_RUN),
        dest="formats",
        metavar="FORMAT",
        help=f"{', '.join(FORMATS)}, all (default: {' '.join(OF_EVERY_RUN)}; the others need the "
        'extra "export")',
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="where its images are now: data.root=photos",
    )
    return parser


def _formats(asked: list[str]) -> tuple[str, ...]:
    return FORMATS if "all" in asked else tuple(name for name in FORMATS if name in asked)


def _check(options: argparse.Namespace, formats: tuple[str, ...]) -> None:
    """Whether the words of the command go together, and what they need is installed. Raises
    `ValueError`."""
    for override in options.overrides:
        if not override.startswith("data."):
            raise ValueError(
                f"--set {override}: expected a key of data; the rest of a run's config made its "
                "encoder what it is"
            )
    for name, packages in missing_packages(formats).items():
        raise ValueError(
            f"--format {name}: expected the packages {', '.join(packages)}, which aren't "
            f"installed: pip install {' '.join(packages)} "
            '(or byol_tf with the extra "export")'
        )


def _export(facts: RunFacts, folder: RunFolder, formats: tuple[str, ...]) -> int:
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "3"
    )  # while converting it tells of optimisations that don't apply, as errors
    prepare_environment()
    import numpy as np
    import tensorflow as tf

    from byol_tf.export.formats import record_proofs
    from byol_tf.export.model_card import write_card
    from byol_tf.export.sample_images import compared_and_calibration, sample_photos
    from byol_tf.export.usage import write_usage
    from byol_tf.export.verification import verify
    from byol_tf.export.writing import write_verified
    from byol_tf.models.inference import exported_form
    from byol_tf.runs.encoders import load_run_encoder

    with contextlib.suppress(
        RuntimeError
    ):  # where TensorFlow has begun, in a program that calls this
        tf.config.set_visible_devices(
            [], "GPU"
        )  # whose convolutions are rounded; the proofs compare on CPUs
    config = facts.config
    inference = load_run_encoder(config, folder)
    plain, size = exported_form(inference, *config.views.preparation), config.views.size
    photos = sample_photos()
    images, calibration, why = compared_and_calibration(config, "litert" in formats)
    if "litert" in formats and not calibration:
        raise ValueError(
            f"--format litert: expected the run's images, on which int8 is calibrated; {why}. "
            "--set data.root=... says where they are"
        )
    expected = np.concatenate(
        [inference.predict_on_batch(image[None]) for image in (*photos, *images)]
    )
    measured_on = f"{len(photos)} photos of odd sizes and {_images(config, images)}"
    print(
        f"{folder.export}: representations of {expected.shape[1]} numbers, compared on "
        f"{measured_on}"
    )
    if why is not None:
        print(f"nearest neighbours aren't compared: {why}")
    print(
        f"  {'file':<24} {'MB':>8} {'ms a photo':>11} {'largest difference':>19} "
        f"{'smallest cosine':>16} {'same neighbour':>15}"
    )
    proofs, failures, notes = {}, [], []
    for name in formats:
        measured, reasons = write_verified(
            name,
            plain,
            folder.export,
            calibration,
            lambda forms, part: verify(forms, part, size, photos, images, expected),
            notes.append,
        )
        for proof in measured:
            print(f"  {_row(proof)}", flush=True)
        failures += reasons
        left_out = {line.split(":")[0] for line in reasons}
        proofs |= {proof.what: proof.facts() for proof in measured if proof.name not in left_out}
    record_proofs(folder.export, proofs)
    write_usage(folder.export, size)
    write_card(facts, folder.export)
    for line in notes:
        print(f"  {line}")
    for line in failures:
        print(f"left out: {line}", file=sys.stderr)
    print(f"  how to use them: {folder.export / 'USAGE.md'}")
    return _TOO_FAR if failures else 0


def _images(config, images: list) -> str:
    return f"{len(images)} images of {config.data.source}" if images else "none of the run's images"


def _row(proof) -> str:
    name = f"{proof.name}/1" if proof.name == "encoder" else proof.name
    name += " (bytes)" if "bytes" in proof.what else ""
    same = "-" if proof.same_neighbour is None else f"{proof.same_neighbour:.1%}"
    return (
        f"{name:<24} {proof.megabytes:>8.2f} {proof.milliseconds:>11.2f} "
        f"{proof.difference:>19.1e} {proof.cosine:>16.6f} {same:>15}"
    )


if __name__ == "__main__":
    sys.exit(main())
