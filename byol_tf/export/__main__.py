"""`python -m byol_tf.export`: exports the encoder of a run's newest checkpoint."""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("export")


import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from byol_tf.command_line import (
    add_path,
    add_set_option,
    check_writable,
    command_parser,
    ends_with_exit_code,
)
from byol_tf.config.loading import load_config
from byol_tf.config.overrides import check_run_overrides
from byol_tf.devices import prepare_environment
from byol_tf.errors import OutputError
from byol_tf.export.formats import DEFAULT_FORMATS, FORMAT_NAMES, FORMATS, missing_packages
from byol_tf.export.hub import check_hub, push
from byol_tf.logs import activity
from byol_tf.runs.files import check_no_link
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.summary import RunFacts, read_facts
from pipelines.extras import install_line

if TYPE_CHECKING:
    from byol_tf.export.verification import Verification

_FAILED = 1


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 1 if a file differs too much from the run's own encoder or can't be used
        without byol_tf, and wasn't kept: then nothing is pushed either; 2, with a message, if the
        run can't be exported, and nothing was written, or the hub refused; 128 + n after signal n.
    """
    options = _parser().parse_args(arguments)
    names = FORMAT_NAMES if "all" in options.formats else tuple(options.formats)
    folder = RunFolder(Path(options.run))
    _check(options.overrides, names)
    if options.push_to_hub is not None:
        check_hub(options.push_to_hub)
    facts = read_facts(folder)
    facts = dataclasses.replace(facts, config=load_config(folder.config, options.overrides))
    check_writable(folder.export, "--run")
    check_no_link(folder.export)  # that of the maps is inside it
    maps = options.features == "map"
    export = folder.export / "map" if maps else folder.export
    names = tuple(name for name in FORMAT_NAMES if name in names)
    code = _export(facts, folder, export, names, maps)
    if options.push_to_hub is not None and code == 0:
        print(f"pushed to {push(export, options.push_to_hub)}")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "export",
        description="Exports the encoder of a run. Each file is loaded in a process without "
        "byol_tf, and compared with the run's own encoder.",
    )
    add_path(
        parser,
        "--run",
        "run folder whose newest checkpoint, or best with run.export=best, is exported to "
        "DIR/export",
        required=True,
    )
    parser.add_argument(
        "--format",
        nargs="+",
        choices=(*FORMAT_NAMES, "all"),
        default=list(DEFAULT_FORMATS),
        dest="formats",
        metavar="FORMAT",
        help=f"{', '.join(FORMAT_NAMES)} or all (default: {' '.join(DEFAULT_FORMATS)}; the others "
        'need the extra "export")',
    )
    parser.add_argument(
        "--features",
        choices=("vector", "map"),
        default="vector",
        help="vector: the representation [N, d]; map: the features [N, h, w, c] that the encoder "
        "pools into it, written to DIR/export/map (default: vector)",
    )
    parser.add_argument(
        "--push-to-hub",
        metavar="NAME/REPOSITORY",
        help="upload DIR/export with its model card to this repository of Hugging Face's hub, "
        'which is made private if it is new (needs the extra "hub", and a login)',
    )
    add_set_option(parser)
    return parser


def _check(overrides: list[str], names: tuple[str, ...]) -> None:
    """Raises an error for an override outside the run's, or if a format's packages are missing."""
    check_run_overrides(overrides)
    for name, packages in missing_packages(names).items():
        raise OutputError(
            f"--format {name}: expected the packages {', '.join(packages)}, which aren't "
            f"installed: {install_line('export')}"
        )


def _export(
    facts: RunFacts, folder: RunFolder, export: Path, names: tuple[str, ...], maps: bool
) -> int:
    prepare_environment()
    import numpy as np
    import tensorflow as tf

    from byol_tf.export.model_card import write_card
    from byol_tf.export.sample_images import load_samples
    from byol_tf.export.usage import write_usage
    from byol_tf.export.writing import write_verified
    from byol_tf.models.feature_map import map_inference_model
    from byol_tf.models.inference import exported_form
    from byol_tf.runs.encoder_input import write_input
    from byol_tf.runs.encoders import load_run_encoder
    from byol_tf.runs.sources import pixel_format, source_options, warn_of_other_images
    from pipelines.sources import plan_source

    # On the CPU, as the exported files are: a GPU may round convolutions to TF32. RuntimeError: a
    # program that calls this function has used the GPU.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    config = facts.config
    inference = load_run_encoder(config, folder)
    if maps:
        try:
            inference = map_inference_model(inference)
        except ValueError as error:
            raise OutputError(f"--features map: {error}") from error
    samples = load_samples(config, calibrate="litert" in names)
    if "litert" in names and not samples.calibration:
        raise OutputError(
            "--format litert: expected the run's images, on which int8 is calibrated; "
            f"{samples.unavailable}. --set data.root=... names their location"
        )
    if samples.unavailable is None:
        warn_of_other_images(folder, plan_source(**source_options(config)))
    expected = np.concatenate(
        [inference.predict_on_batch(image[None]) for image in (*samples.photos, *samples.images)]
    )
    model = exported_form(inference)
    print(
        f"{export}: {'maps' if maps else 'representations'} of "
        f"{' x '.join(map(str, expected.shape[1:]))} numbers, compared on "
        f"{len(samples.photos)} photos of odd sizes and {len(samples.images)} images of "
        f"{config.data.source}"
    )
    if samples.unavailable is not None:
        print(f"nearest neighbours aren't compared: {samples.unavailable}")
    print(
        f"  {'file':<24} {'MB':>8} {'ms/photo':>9} {'difference':>11} {'cosine':>9} "
        f"{'neighbour':>10}"
    )
    failures = []
    for name in names:
        with activity(f"{name}: writing, and comparing in a new process"):
            verifications, reasons = write_verified(name, model, export, samples, expected)
        for verification in verifications:
            print(f"  {_row(verification)}", flush=True)
        failures += reasons
    pixels = pixel_format(config)
    write_input(export, pixels)
    write_usage(export, inference.get_layer("centre").height, maps, pixels)
    write_card(facts, export, maps)
    for failure in failures:
        print(f"not exported: {failure}", file=sys.stderr)
    print(f"  how to use them: {export / 'USAGE.md'}")
    return _FAILED if failures else 0


def _row(verification: "Verification") -> str:
    (export_format,) = [each for each in FORMATS if each.title == verification.title]
    name = export_format.path + (" (bytes)" if export_format.snippet.takes_bytes else "")
    same = "-" if verification.same_neighbour is None else f"{verification.same_neighbour:.1%}"
    return (
        f"{name:<24} {verification.megabytes:>8.2f} {verification.milliseconds:>9.2f} "
        f"{verification.difference:>11.1e} {verification.cosine:>9.6f} {same:>10}"
    )
