"""`python -m byol_tf.evaluate`: protocols that judge an encoder on labelled images."""

import argparse
import hashlib
import json
import shlex
import sys
import time
from pathlib import Path

from byol_tf.config.loading import load_config
from byol_tf.devices import prepare_environment
from byol_tf.errors import ConfigError
from byol_tf.runs.files import write_atomically
from byol_tf.runs.folder import RunFolder

_USAGE_ERROR = 2
_RUN_KEYS = ("data.", "seed=")
"""What may be overridden for a run: which images, and what is drawn. The rest made the encoder what
it is."""


class UsageError(Exception):
    """What the command was asked for can't be done; the text says why and what would be right."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, or 2 with a message and nothing written if
    encoder, images or options are wrong."""
    options = _parser().parse_args(arguments)
    try:
        config = _config(options)
        out = _out(options)
        prepare_environment()
        result = _measure(options, config)
    except (ConfigError, UsageError) as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    if result is None:
        return _USAGE_ERROR
    result["command"] = shlex.join(
        ["python", "-m", "byol_tf.evaluate", *(sys.argv[1:] if arguments is None else arguments)]
    )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "result.json", json.dumps(result, indent=2) + "\n")
    _report(result, out)
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    what = common.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--run", metavar="DIR", help="a run folder: its newest checkpoint, its images"
    )
    what.add_argument(
        "--encoder",
        metavar="PATH",
        help="an exported encoder: the folder of a SavedModel, or a .keras file",
    )
    common.add_argument(
        "--config",
        metavar="FILE",
        help="with --encoder: the config that says which images, and the side of a view",
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
        help="where result.json goes (default: RUN/evaluation/<protocol>; needed with --encoder)",
    )
    parser = argparse.ArgumentParser(
        prog="python -m byol_tf.evaluate",
        description="Judges an encoder on labelled images. Test labels choose nothing.",
    )
    protocols = parser.add_subparsers(dest="protocol", metavar="PROTOCOL", required=True)

    def protocol(name: str, text: str) -> argparse.ArgumentParser:
        return protocols.add_parser(
            name, parents=[common], help=text, description=f"{name}: {text}."
        )

    linear = protocol(
        "linear",
        "a linear classifier on the frozen encoder: the BYOL paper's (crops, SGD), or --fast",
    )
    linear.add_argument(
        "--fast", action="store_true", help="logistic regression on features computed once"
    )
    _training_options(linear, "80", "the BYOL paper's, and larger ones")
    knn = protocol("knn", "a vote of the nearest training images")
    knn.add_argument(
        "--neighbours",
        type=_count,
        metavar="K",
        help="how many vote (default: the config's probe.neighbours)",
    )
    votes = knn.add_mutually_exclusive_group()
    votes.add_argument(
        "--temperature",
        type=_positive,
        metavar="T",
        help="votes weigh exp(cosine / T) (default: probe.temperature)",
    )
    votes.add_argument("--uniform", action="store_true", help="all votes weigh the same")
    for name, text in (
        ("finetune", "encoder and linear layer trained on a fraction of the labels"),
        ("supervised", "the same network from scratch on the same labels: the baseline"),
    ):
        tune = protocol(name, text)
        tune.add_argument(
            "--fraction",
            type=_fraction,
            default=1.0,
            metavar="F",
            help="share of the labelled images (default: 1)",
        )
        tune.add_argument(
            "--seeds",
            type=_count,
            default=3,
            metavar="N",
            help="repetitions, for mean and spread (default: 3)",
        )
        _training_options(
            tune, "25", "three, half a power of ten apart, and on where an end is best"
        )
    return parser


def _training_options(parser: argparse.ArgumentParser, epochs: str, rates: str) -> None:
    parser.add_argument(
        "--epochs",
        type=_count,
        metavar="N",
        help=f"passes over the labelled images (default: {epochs})",
    )
    parser.add_argument(
        "--batch-size",
        type=_count,
        metavar="N",
        help="images a step, at most (default: the paper's)",
    )
    parser.add_argument(
        "--rates",
        type=_positive,
        nargs="+",
        metavar="R",
        help="learning rates tried on held-out training labels; a single one is used as it is "
        f"(default: {rates})",
    )


def _count(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more; received {text!r}")
    return value


def _positive(text: str, most: float = float("inf")) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= most or value == float("inf"):
        limit = "" if most == float("inf") else f" and at most {most:g}"
        raise argparse.ArgumentTypeError(f"expected a number above 0{limit}; received {text!r}")
    return value


def _fraction(text: str) -> float:
    return _positive(text, 1.0)


def _config(options: argparse.Namespace):
    """The config that says which images. Raises `ConfigError`, `UsageError`."""
    if (
        options.protocol == "linear"
        and options.fast
        and (options.epochs or options.rates or options.batch_size)
    ):
        raise UsageError(
            "--fast: computes features once and has no epochs, batches or rates; leave --epochs, "
            "--batch-size and --rates out"
        )
    if options.encoder is not None:
        if options.config is None:
            raise UsageError(
                "--config: missing; expected a config that says which images, as --encoder is a "
                "file and no run"
            )
        if options.out is None:
            raise UsageError(
                "--out: missing; expected a folder for result.json, as --encoder is a file and no "
                "run"
            )
        return load_config(options.config, options.overrides)
    folder = RunFolder(Path(options.run))
    if not folder.config.exists():
        raise UsageError(
            f"--run {folder.root}: expected a run folder, with a config.json; found none there"
        )
    if options.config is not None:
        raise UsageError(
            "--config: is for --encoder; a run has its own config, of which --set data.root=... "
            "changes the images"
        )
    for override in options.overrides:
        if not override.startswith(_RUN_KEYS):
            raise UsageError(
                f"--set {override}: expected a key of data, or seed; the rest of a run's config "
                "made its encoder what it is"
            )
    return load_config(folder.config, options.overrides)


def _out(options: argparse.Namespace) -> Path:
    """The folder for `result.json`, named after what makes a figure another one. Raises
    `UsageError` if another result is there."""
    if options.out is None:
        return RunFolder(Path(options.run)).root / "evaluation" / _name(options)
    result = Path(options.out) / "result.json"
    if result.exists():
        try:
            ours = "protocol" in json.loads(result.read_text(encoding="utf-8"))
        except (ValueError, OSError, TypeError):
            ours = False
        if not ours:
            raise UsageError(
                f"--out {options.out}: expected a folder of its own; {result} is no evaluation's "
                "and would be overwritten"
            )
    return Path(options.out)


def _name(options: argparse.Namespace) -> str:
    given = vars(options)
    words = [options.protocol]
    if options.protocol in ("finetune", "supervised"):
        words.append(f"{options.fraction:g}")
    words += [name for name in ("fast", "uniform") if given.get(name)]
    for name, letter in (
        ("neighbours", "k"),
        ("temperature", "t"),
        ("epochs", "epochs"),
        ("batch_size", "batch"),
    ):
        if given.get(name) is not None:
            words.append(f"{letter}{given[name]:g}")
    if given.get("seeds", 3) != 3:
        words.append(f"seeds{options.seeds}")
    if given.get("rates"):
        words.append("rates" + "_".join(f"{rate:g}" for rate in options.rates))
    if options.overrides:  # paths make no file names
        words.append("set" + hashlib.sha256("\n".join(options.overrides).encode()).hexdigest()[:8])
    return "-".join(words)


def _measure(options: argparse.Namespace, config) -> dict | None:
    """The result of the protocol; None if that can't be had, with a message. TensorFlow is imported
    here."""
    import tensorflow as tf

    from byol_tf.errors import ProtocolError
    from byol_tf.evaluate.protocols import labelled_source, run_protocol
    from byol_tf.runs.encoders import load_encoder_file, load_run_encoder
    from pipelines.sources import SourceError

    tf.get_logger().setLevel(
        "ERROR"
    )  # it would warn that each of several trainings is traced anew, as it has to be
    began = time.perf_counter()
    try:
        source = labelled_source(config, _say_loaded)
        inference = (
            load_run_encoder(config, RunFolder(Path(options.run)))
            if options.run
            else load_encoder_file(Path(options.encoder))
        )
        _say(
            f"{options.protocol}: {options.run or options.encoder} on {config.data.source}, "
            f"{len(source.train):,} labelled images to learn "
            f"from, {len(source.test):,} to be judged on, {len(source.class_names)} classes"
        )
        measured = run_protocol(options, config, inference, source, _say)
    except (ProtocolError, SourceError) as error:
        print(error, file=sys.stderr)
        return None
    facts = {
        "protocol": options.protocol,
        "encoder": options.run or options.encoder,
        "source": config.data.source,
        "train_images": len(source.train),
        "test_images": len(source.test),
        "classes": len(source.class_names),
        "data_fingerprint": source.fingerprint,
        "seed": config.seed,
        "overrides": options.overrides,
    }
    return facts | measured | {"seconds": round(time.perf_counter() - began, 3)}


def _say(line: str) -> None:
    print(line, flush=True)


def _say_loaded(what: str, done: int, total: int) -> None:
    if done == total:
        _say(f"{what}: {total:,} images")


def _report(result: dict, out: Path) -> None:
    spread = result.get("top1_std")
    line = f"top-1 {result['top1']:.1%}" + (
        f" +- {spread:.1%} over {len(result['top1_each'])} seeds" if spread is not None else ""
    )
    if result.get("top5") is not None:
        line += f", top-5 {result['top5']:.1%}"
    chosen = [f"{name} {result[name]:g}" for name in ("rate", "C") if name in result]
    tried = len(result.get("held_out_accuracy", ()))
    if tried:
        chosen[-1] += f", the best of {tried} on held-out training labels"
    print(f"\n  {line}" + (f" ({chosen[0]})" if chosen else ""))
    if tried > 1 and "rate" in result and result["rate"] in _ends(result["held_out_accuracy"]):
        print("  that is an end of the rates tried: one beyond it might do better (--rates)")
    if result.get("converged") is False:
        print(
            "  the regression ended at its last iteration: the figure is a lower bound of what "
            "more would give"
        )
    print(f"  {out / 'result.json'}\n")
    print(json.dumps(result))


def _ends(tried: dict[str, float]) -> tuple[float, float]:
    rates = [float(rate) for rate in tried]
    return min(rates), max(rates)


if __name__ == "__main__":
    sys.exit(main())
