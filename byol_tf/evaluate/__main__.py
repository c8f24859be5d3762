"""`python -m byol_tf.evaluate`: evaluates an encoder on labelled images."""

import argparse
import hashlib
import json
import logging
import shlex
import sys
import time
from pathlib import Path

from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config
from byol_tf.devices import prepare_environment
from byol_tf.errors import ConfigError, ProtocolError
from byol_tf.evaluate.protocols import DEFAULT_SEEDS, PROTOCOLS, Evaluation, labelled_source
from byol_tf.logs import configure_logging
from byol_tf.runs.files import write_atomically
from byol_tf.runs.folder import RunFolder
from pipelines.sources import SourceError

_USAGE_ERROR = 2
_RUN_KEYS = ("data.", "seed=")
"""Overrides that a run allows: other images or another sample. The rest determined its encoder."""
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
}
"""Of the options that change a figure, in the name of the result's folder."""

logger = logging.getLogger("byol_tf.evaluate")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: of the command line; those of the process by default.

    Returns:
        The exit code: 0, or 2 with a message and nothing written if encoder, images or options are
        wrong.
    """
    options = _parser().parse_args(arguments)
    configure_logging()
    try:
        config = _load_config(options)
        folder = _output_folder(options)
        prepare_environment()
        result = _evaluate(options, config)
    except (ConfigError, ProtocolError, SourceError) as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    result["command"] = shlex.join(
        ["python", "-m", "byol_tf.evaluate", *(sys.argv[1:] if arguments is None else arguments)]
    )
    curve = result.pop("curve", None)
    folder.mkdir(parents=True, exist_ok=True)
    if curve:
        lines = [",".join(curve[0]), *(",".join(map(str, row.values())) for row in curve)]
        write_atomically(folder / "curve.csv", "\n".join(lines) + "\n")
    write_atomically(folder / "result.json", json.dumps(result, indent=2) + "\n")
    _print_result(result, folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    encoder = common.add_mutually_exclusive_group(required=True)
    encoder.add_argument(
        "--run", metavar="DIR", help="a run folder: its newest checkpoint, its images"
    )
    encoder.add_argument(
        "--encoder",
        metavar="PATH",
        help="an exported encoder: the folder of a SavedModel, or a .keras file",
    )
    common.add_argument(
        "--config",
        metavar="FILE",
        help="with --encoder: the config that names the images and the size of a crop",
    )
    common.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="other images: data.root=photos",
    )
    common.add_argument(
        "--out",
        metavar="DIR",
        help="folder for result.json (default: RUN/evaluation/<protocol>; required with --encoder)",
    )
    parser = argparse.ArgumentParser(
        prog="python -m byol_tf.evaluate",
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
    if not folder.config.exists():
        raise ProtocolError(
            f"--run {folder.root}: expected a run folder, with a config.json; found none there"
        )
    if options.config is not None:
        raise ProtocolError(
            "--config: only with --encoder; a run has its own config, and --set data.root=... "
            "changes the images"
        )
    for override in options.overrides:
        if not override.startswith(_RUN_KEYS):
            raise ProtocolError(
                f"--set {override}: expected a key of data, or seed; the rest of a run's config "
                "determined its encoder"
            )
    return load_config(folder.config, options.overrides)


def _output_folder(options: argparse.Namespace) -> Path:
    """The folder for `result.json`.

    Raises:
        ProtocolError: if a `result.json` of something else is there.
    """
    if options.out is None:
        return RunFolder(Path(options.run)).root / "evaluation" / _result_name(options)
    result = Path(options.out) / "result.json"
    if result.exists():
        try:
            is_evaluation = "protocol" in json.loads(result.read_text(encoding="utf-8"))
        except (ValueError, OSError, TypeError):
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


def _evaluate(options: argparse.Namespace, config: Config) -> dict:
    """Runs the protocol; returns its results and what they are of.

    Raises:
        ProtocolError: if encoder or images don't suit the protocol.
        SourceError: if images can't be read.
    """
    import tensorflow as tf

    from byol_tf.runs.encoders import load_encoder_file, load_run_encoder

    # Each of several trainings is traced anew, of which TensorFlow would warn.
    tf.get_logger().setLevel("ERROR")
    start = time.perf_counter()
    source, train, test = labelled_source(config, _log_loaded)
    inference = (
        load_run_encoder(config, RunFolder(Path(options.run)))
        if options.run
        else load_encoder_file(Path(options.encoder))
    )
    logger.info(
        "%s: %s on %s, %s labelled images to learn from, %s to test on, %d classes",
        options.protocol,
        options.run or options.encoder,
        config.data.source,
        f"{len(train):,}",
        f"{len(test):,}",
        len(source.class_names),
    )
    evaluation = Evaluation(options, config, inference, train, test)
    results = PROTOCOLS[options.protocol].run(evaluation)
    facts = {
        "protocol": options.protocol,
        "encoder": options.run or options.encoder,
        "source": config.data.source,
        "train_images": len(train),
        "test_images": len(test),
        "classes": len(source.class_names),
        "data_fingerprint": source.fingerprint,
        "seed": config.seed,
        "overrides": options.overrides,
    }
    return facts | results | {"seconds": round(time.perf_counter() - start, 3)}


def _log_loaded(name: str, done: int, total: int) -> None:
    if done == total:
        logger.info("%s: %s images", name, f"{total:,}")


def _print_result(result: dict, folder: Path) -> None:
    """Prints the figures for people, then as a last line the result as JSON."""
    line = f"top-1 {result['top1']:.1%}"
    if result.get("top1_std") is not None:
        line += f" +- {result['top1_std']:.1%} over {len(result['top1_each'])} seeds"
    if result.get("top5") is not None:
        line += f", top-5 {result['top5']:.1%}"
    accuracies = result.get("held_out_accuracy", {})
    chosen = [f"{name} {result[name]:g}" for name in ("rate", "C") if name in result]
    if accuracies:
        chosen.append(f"the best of {len(accuracies)} on held-out training labels")
    print(f"\n  {line}" + (f" ({', '.join(chosen)})" if chosen else ""))
    rates = [float(rate) for rate in accuracies]
    if "rate" in result and len(rates) > 1 and result["rate"] in (min(rates), max(rates)):
        print("  this is the smallest or largest rate tried; try others beyond it with --rates")
    if result.get("converged") is False:
        print(
            "  the regression stopped at its iteration limit: more iterations might give a higher "
            "figure"
        )
    print(f"  {folder / 'result.json'}\n")
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
