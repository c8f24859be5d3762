"""`python -m byol_tf.evaluate`: evaluates an encoder on labelled images."""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("evaluate")


import argparse
import contextlib
import hashlib
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from byol_tf.command_line import (
    add_json_option,
    add_path,
    add_set_option,
    check_writable,
    command_parser,
    command_text,
    ends_with_exit_code,
    print_json,
    program,
)
from byol_tf.config.loading import load_config
from byol_tf.config.overrides import check_run_overrides
from byol_tf.config.schema import Config
from byol_tf.devices import prepare_environment
from byol_tf.errors import (
    SAVES_FAILED,
    ProtocolError,
    WorkKept,
)
from byol_tf.evaluate.protocols import (
    DEFAULT_SEEDS,
    PROTOCOLS,
    Evaluation,
    check_labelled,
    labelled_source,
)
from byol_tf.export.classifier_folder import check_classifier_folder
from byol_tf.logs import ProgressLog, activity, counted, wrapped
from byol_tf.runs.accuracy import Accuracy, chance
from byol_tf.runs.files import (
    check_no_link,
    read_json_object,
    why_no_folder,
    write_atomically,
    write_csv,
)
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.hub import encoder_path
from byol_tf.runs.splits import require_labels
from byol_tf.runs.summary import leak_text
from pipelines.registry import SOURCES
from pipelines.sources import SourceError
from pipelines.sources.pixels import PixelFormat

_NAME_PREFIXES = {
    "fraction": "",
    "fast": "fast",
    "uniform": "uniform",
    "neighbours": "k",
    "temperature": "t",
    "epochs": "epochs",
    "batch_size": "batch",
    "seeds": "seeds",
    "rates": "rates",
    "preset": "",
    "freeze_batch_norm": "frozen-bn",
    "head": "head-",
    "augment": "augment-",
}
"""Of the options that change a figure, in the name of the result's folder."""

_OTHER_IMAGES = ("data.root=", "data.source=", "data.archive=")
"""Beginnings of overrides that name other images than the run's on purpose."""

logger = logging.getLogger("byol_tf.evaluate")


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 2 with a message and nothing written if encoder, images, options or
        output folder are wrong; 74 if the result can't be written, which is printed then; 1 if the
        classifier can't be exported; 128 + n after signal n. The seeds that were finished by then
        are printed and kept in `partial.json`.
    """
    options = _parser().parse_args(arguments)
    config = _load_config(options)
    folder = _output_folder(options)
    check_writable(folder, "--run" if options.out is None else "--out")
    if getattr(options, "export", None) is not None:
        check_classifier_folder(Path(options.export))
        check_writable(Path(options.export), "--export")
    if SOURCES[config.data.source].root:  # a mistake in it needn't wait for TensorFlow
        with _source_errors(options):
            check_labelled(config)
    prepare_environment()
    result, stopped = _evaluate(options, config)
    result["command"] = command_text("evaluate", arguments)
    file = folder / ("result.json" if stopped is None else "partial.json")
    curve = result.pop("curve", None)
    _print_result(result)
    error = _write_result(file, result, curve)
    print(f"  {file if error is None else 'not saved'}")
    if (exported := result.get("export")) is not None:
        folder = exported["folder"]
        print(wrapped(f"{folder}: {', '.join(exported['files'])}; USAGE.md has code for each"))
        print(f"  next: {program('predict')} --classifier {shlex.quote(folder)} --images DIR")
    print()
    print_json(result, options)
    if stopped is not None:
        raise WorkKept(f"{stopped}; they are in {file}" if error is None else str(stopped))
    if error is not None:
        print(f"{file}: can't be written: {error.strerror or error}", file=sys.stderr)
        return SAVES_FAILED
    if "export_error" in result:
        print(result["export_error"], file=sys.stderr)
        return 1
    return 0


def _write_result(file: Path, result: dict, curve: list[dict] | None) -> OSError | None:
    """Writes result and curve; returns why they can't be, for a message after the figures."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if curve:
            write_csv(
                file.with_name("curve.csv"), tuple(curve[0]), (tuple(row.values()) for row in curve)
            )
        write_atomically(file, json.dumps(result, indent=2) + "\n")
        if file.name == "result.json":
            file.with_name("partial.json").unlink(missing_ok=True)
    except OSError as error:
        return error
    return None


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    add_json_option(common)
    encoder = common.add_mutually_exclusive_group(required=True)
    add_path(
        encoder,
        "--run",
        "a run folder: its newest checkpoint (the best with run.export=best), its images",
    )
    add_path(
        encoder,
        "--encoder",
        "an exported encoder: the folder of a SavedModel, a .keras file, or hf://NAME/REPOSITORY",
        metavar="PATH",
    )
    common.add_argument(
        "--config",
        metavar="FILE",
        help="with --encoder: the config that names the images and the size of a crop",
    )
    add_set_option(
        common, "other images, data.root=photos, or another size, encoder.inference_size=64"
    )
    add_path(
        common,
        "--out",
        "folder for result.json (default: RUN/evaluation/<protocol>; required with --encoder)",
    )
    parser = command_parser(
        "evaluate",
        description="Evaluates an encoder on labelled images. Test labels decide nothing.",
    )
    subparsers = parser.add_subparsers(dest="protocol", metavar="PROTOCOL", required=True)
    for name, protocol in PROTOCOLS.items():
        description = f"{name}: {protocol.summary}."
        protocol.add_options(
            subparsers.add_parser(
                name, parents=[common], help=protocol.summary, description=description
            )
        )
    return parser


def _load_config(options: argparse.Namespace) -> Config:
    """Loads the config that names the images.

    Raises:
        ConfigError: see `load_config`.
        ProtocolError: if options are missing or contradict each other.
    """
    if getattr(options, "fast", False) and (options.epochs or options.rates or options.batch_size):
        raise ProtocolError(
            "--fast: computes features once and has no epochs, batches or rates; remove "
            "--epochs, --batch-size and --rates"
        )
    if options.encoder is not None:
        for name, value, expected in (
            ("--config", options.config, "a config that names the images"),
            ("--out", options.out, "a folder for result.json"),
        ):
            if value is None:
                raise ProtocolError(
                    f"{name}: missing; expected {expected}, as --encoder is a file and not a run"
                )
        return load_config(options.config, options.overrides)
    folder = RunFolder(Path(options.run))
    folder.require_config()
    if options.config is not None:
        raise ProtocolError(
            "--config: only with --encoder; a run has its own config, and --set data.root=... "
            "changes the images"
        )
    check_run_overrides(options.overrides, seed=True)
    return load_config(folder.config, options.overrides)


def _output_folder(options: argparse.Namespace) -> Path:
    """The folder for `result.json`.

    Raises:
        ProtocolError: if a `result.json` of something else is there, or there can be no folder.
        RunFolderError: if the run's folder for it is a link.
    """
    if options.out is None:
        evaluations = RunFolder(Path(options.run)).root / "evaluation"
        folder = evaluations / _result_name(options)
        check_no_link(evaluations)
        check_no_link(folder)
        return folder
    if reason := why_no_folder(Path(options.out)):
        raise ProtocolError(f"--out {options.out}: expected a folder, new or not; {reason}")
    result = Path(options.out) / "result.json"
    if os.path.exists(result):
        try:
            is_evaluation = "protocol" in read_json_object(result)
        except (OSError, ValueError):
            is_evaluation = False
        if not is_evaluation:
            raise ProtocolError(
                f"--out {options.out}: expected a folder of its own; {result} is not from an "
                "evaluation and would be overwritten"
            )
    return Path(options.out)


def _result_name(options: argparse.Namespace) -> str:
    """The protocol and its options other than the defaults, as a file name."""
    words = [options.protocol]
    for name, prefix in _NAME_PREFIXES.items():
        value = getattr(options, name, None)
        if value is None or value is False or (name == "seeds" and value == DEFAULT_SEEDS):
            continue
        values = [] if value is True else value if isinstance(value, list) else [value]
        words.append(
            prefix + "_".join(item if isinstance(item, str) else f"{item:g}" for item in values)
        )
    if options.overrides:  # values such as paths can't be part of a file name
        digest = hashlib.sha256("\n".join(options.overrides).encode()).hexdigest()
        words.append(f"set{digest[:8]}")
    return "-".join(words)


@contextlib.contextmanager
def _source_errors(options: argparse.Namespace) -> Iterator[None]:
    """Turns a `SourceError` into a `ProtocolError`, with the option that names other images."""
    try:
        yield
    except SourceError as error:
        hint = ". --set data.root=... names the place of the images" if options.run else ""
        raise ProtocolError(f"{error}{hint}") from error


def _evaluate(options: argparse.Namespace, config: Config) -> tuple[dict, WorkKept | None]:
    """Runs the protocol.

    Returns:
        Its results and what they are of, and what stopped it with a part of them.

    Raises:
        ProtocolError: if encoder or images don't suit the protocol.
        SourceError: if images can't be read.
    """
    import tensorflow as tf

    from byol_tf.runs.encoder_input import model_input
    from byol_tf.runs.encoders import load_encoder_file, load_run_encoder
    from byol_tf.runs.sources import log_findings, warn_of_other_images

    # Each of several trainings is traced anew, of which TensorFlow would warn.
    tf.get_logger().setLevel("ERROR")
    start = time.perf_counter()
    with _source_errors(options):
        if not SOURCES[config.data.source].root:  # which is checked already
            check_labelled(config)
        source, train, test = labelled_source(config, ProgressLog(logger))
    log_findings(source)
    if options.run and not any(each.startswith(_OTHER_IMAGES) for each in options.overrides):
        warn_of_other_images(RunFolder(Path(options.run)), source)
    if options.run:
        inference = load_run_encoder(config, RunFolder(Path(options.run)))
    else:
        inference = load_encoder_file(encoder_path(options.encoder))
        _check_pixels(model_input(inference), config)
    logger.info(
        "%s: %s on %s, %s labelled images to learn from, %s to test on, %d classes",
        options.protocol,
        options.run or options.encoder,
        config.data.source,
        f"{len(train):,}",
        f"{len(test):,}",
        len(source.class_names),
    )
    stopped = None
    try:
        with activity(f"evaluating: {options.protocol}") as show:
            names = source.class_names
            evaluation = Evaluation(options, config, inference, train, test, names, show)
            results = PROTOCOLS[options.protocol].run(evaluation)
    except WorkKept as error:
        results, stopped = error.result, error
    facts = {
        "protocol": options.protocol,
        "encoder": options.run or options.encoder,
        "source": config.data.source,
        "train_images": len(train),
        "test_images": len(test),
        "classes": len(source.class_names),
        "chance": chance(require_labels(test)),
        "data_fingerprint": source.fingerprint,
        "leaked_test_images": source.leaked,
        "skipped_images": len(source.skipped),
        "seed": config.seed,
        "overrides": options.overrides,
    }
    interval = {"top1_interval": Accuracy(results["top1"], len(test)).interval}
    seconds = {"seconds": round(time.perf_counter() - start, 3)}
    return facts | results | interval | seconds, stopped


def _check_pixels(takes: PixelFormat, config: Config) -> None:
    """Raises `ProtocolError` unless an encoder takes images as the config reads them."""
    data = config.data
    if (takes.channels, takes.depth) != (data.channels, data.depth):
        raise ProtocolError(
            f"--encoder: it takes images of {counted(takes.channels, 'channel')} and {takes.depth} "
            f"bits; expected data.channels={takes.channels} and data.depth={takes.depth} in the "
            f"config, received {data.channels} and {data.depth}"
        )


def _print_result(result: dict) -> None:
    """Prints the figures for people."""
    line = f"top-1 {Accuracy(result['top1'], result['test_images'])}"
    if result.get("top1_std") is not None:
        line += f" +- {result['top1_std']:.1%} over {len(result['top1_each'])} seeds"
    if result.get("top5") is not None:
        line += f", top-5 {result['top5']:.1%}"
    accuracies = result.get("held_out_accuracy", {})
    chosen = [f"{name} {result[name]:g}" for name in ("rate", "C") if name in result]
    if accuracies:
        chosen.append(f"the best of {len(accuracies)} on held-out training labels")
    print()
    print(wrapped(line + (f" ({', '.join(chosen)})" if chosen else "")))
    print(
        wrapped(
            f"in brackets: 95% interval, from {counted(result['test_images'], 'test image')}; "
            f"always the most frequent class: {result['chance']:.1%}"
        )
    )
    if leaked := result["leaked_test_images"]:
        print(wrapped(leak_text(leaked)))
    rates = sorted(float(rate) for rate in accuracies)
    # Rounded as those are, which are the keys of a JSON object.
    chosen_rate = float(f"{result['rate']:g}") if "rate" in result else None
    if len(rates) > 1 and chosen_rate in (rates[0], rates[-1]):
        print(
            wrapped("this is the smallest or largest rate tried; try others beyond it with --rates")
        )
    if result.get("converged") is False:
        print(
            wrapped(
                "the regression stopped at its iteration limit: more iterations might give a "
                "higher figure"
            )
        )
