"""The evaluation protocols: their options on the command line, and how each is run.

A new protocol is a module of this package that measures it, and here a function that calls it and
an entry of `PROTOCOLS`. TensorFlow is imported when a protocol runs, so that `--help` is quick.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from byol_tf.config.schema import Config
from byol_tf.errors import ProtocolError
from byol_tf.evaluate.splits import require_labels
from pipelines.sources import Images, Source

if TYPE_CHECKING:
    import keras

DEFAULT_SEEDS = 3

Run = Callable[[argparse.Namespace, Config, "keras.Model", Images, Images], dict]


@dataclass(frozen=True)
class Protocol:
    """A way to evaluate an encoder.

    Attributes:
        summary: for the command's help.
        add_options: adds its options to a parser. Options without a value are None.
        run: from (options, config, inference model, training images, test images) to its results
            as JSON types. Raises `ProtocolError` if labels or encoder don't suit it.
    """

    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Run


def run_linear(
    options: argparse.Namespace,
    config: Config,
    inference: "keras.Model",
    train: Images,
    test: Images,
) -> dict:
    """Runs `linear_protocol`, or with --fast `logistic_protocol`."""
    inference = _plain_model(options, config, inference)
    if options.fast:
        from byol_tf.evaluate.logistic import logistic_protocol

        return {"fast": True} | logistic_protocol(*_features(inference, train, test), config.seed)

    from byol_tf.evaluate.linear import LinearRecipe, linear_protocol

    return linear_protocol(
        inference,
        evaluation_crop_size(inference, config),
        train,
        test,
        LinearRecipe(**_training_settings(options)),
        config.seed,
        _verbose(),
    )


def run_knn(
    options: argparse.Namespace,
    config: Config,
    inference: "keras.Model",
    train: Images,
    test: Images,
) -> dict:
    """Runs `knn_accuracy`."""
    from byol_tf.evaluate.knn import knn_accuracy

    neighbours = options.neighbours or config.probe.neighbours
    temperature = None if options.uniform else options.temperature or config.probe.temperature
    features = _features(_plain_model(options, config, inference), train, test)
    return {
        "top1": knn_accuracy(*features, neighbours, temperature),
        "neighbours": neighbours,
        "temperature": temperature,
    }


def run_tuning(
    options: argparse.Namespace,
    config: Config,
    inference: "keras.Model",
    train: Images,
    test: Images,
) -> dict:
    """Runs `tune_protocol`, from the encoder's weights or (supervised) from scratch."""
    from byol_tf.evaluate.finetune import (
        FINETUNE_RATES,
        SUPERVISED_RATES,
        TuneRecipe,
        tune_protocol,
    )

    from_scratch = options.protocol == "supervised"
    settings = {"rates": SUPERVISED_RATES if from_scratch else FINETUNE_RATES}
    recipe = TuneRecipe(
        from_scratch,
        widen=options.rates is None,
        fraction=options.fraction,
        seeds=options.seeds,
        **(settings | _training_settings(options)),
    )
    return tune_protocol(inference, train, test, recipe, config.seed, _verbose())


def _linear_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fast", action="store_true", help="logistic regression on features computed once"
    )
    _training_options(parser, "80", "the BYOL paper's, and larger ones")


def _knn_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--neighbours",
        type=_positive_int,
        metavar="K",
        help="number of votes (default: the config's probe.neighbours)",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--temperature",
        type=_positive_float,
        metavar="T",
        help="weigh votes by exp(cosine / T) (default: probe.temperature)",
    )
    weights.add_argument("--uniform", action="store_true", help="weigh all votes the same")


def _tuning_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fraction",
        type=_fraction,
        default=1.0,
        metavar="F",
        help="fraction of the labelled images to use (default: 1)",
    )
    parser.add_argument(
        "--seeds",
        type=_positive_int,
        default=DEFAULT_SEEDS,
        metavar="N",
        help=f"repetitions, for mean and standard deviation (default: {DEFAULT_SEEDS})",
    )
    _training_options(
        parser, "25", "three, half a power of ten apart, and further ones beyond the best end"
    )


def _training_options(parser: argparse.ArgumentParser, epochs: str, rates: str) -> None:
    parser.add_argument(
        "--epochs",
        type=_positive_int,
        metavar="N",
        help=f"passes over the labelled images (default: {epochs})",
    )
    parser.add_argument(
        "--batch-size",
        type=_positive_int,
        metavar="N",
        help="images per step, at most (default: the paper's)",
    )
    parser.add_argument(
        "--rates",
        type=_positive_float,
        nargs="+",
        metavar="R",
        help="learning rates to try on held-out training labels; a single one is used as it is "
        f"(default: {rates})",
    )


PROTOCOLS = {
    "linear": Protocol(
        "a linear classifier on the frozen encoder: the BYOL paper's (crops, SGD), or --fast",
        _linear_options,
        run_linear,
    ),
    "knn": Protocol("a vote of the nearest training images", _knn_options, run_knn),
    "finetune": Protocol(
        "encoder and linear layer trained on a fraction of the labels", _tuning_options, run_tuning
    ),
    "supervised": Protocol(
        "the same network from scratch on the same labels: the baseline",
        _tuning_options,
        run_tuning,
    ),
}


def labelled_source(
    config: Config, on_progress: Callable[[str, int, int], None]
) -> tuple[Source, Images, Images]:
    """Opens the labelled images of a config, and no unlabelled ones.

    Args:
        config: with the source.
        on_progress: as of `open_source`.

    Returns:
        The source, its training images and its test images.

    Raises:
        ProtocolError: if there are no labelled images to learn from, or none to test on.
        SourceError: if images can't be read.
    """
    from byol_tf.runs.data import source_options
    from pipelines.sources import open_source, plan_source

    options = source_options(config)
    counts = plan_source(**options).counts
    missing = [split for split in ("train", "test") if not counts[split]]
    if missing:
        raise ProtocolError(
            "data: expected labelled images to learn from and others to test on; data.source "
            f'"{config.data.source}" has no {" and no ".join(missing)} here. A folder needs '
            "train/<class>/ and test/<class>/, or class folders"
        )
    source = open_source(**(options | {"pretrain": "train"}), on_progress=on_progress)
    # both were counted above
    return source, source.train, source.test  # type: ignore[return-value]


def evaluation_crop_size(inference: "keras.Model", config: Config) -> int:
    """Side of the encoder's input in pixels; of a model that doesn't tell, `views.size`."""
    from byol_tf.models.inference import split_inference_model

    try:
        return split_inference_model(inference)[2].input_shape[1]
    except ProtocolError:
        return config.views.size


def _plain_model(
    options: argparse.Namespace, config: Config, inference: "keras.Model"
) -> "keras.Model":
    """The inference model as an export has it, so that a run and its exports agree exactly."""
    from byol_tf.models.inference import exported_form

    return exported_form(inference, *config.views.preparation) if options.run else inference


def _features(
    inference: "keras.Model", train: Images, test: Images
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features and labels of the training images, then those of the test images."""
    from byol_tf.evaluate.features import embed

    train_features, test_features = embed(inference, train), embed(inference, test)
    return train_features, require_labels(train), test_features, require_labels(test)


def _training_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The training options that the user gave, by the names of the recipes' attributes."""
    settings = {name: getattr(options, name) for name in ("epochs", "batch_size", "rates")}
    return {
        name: tuple(value) if name == "rates" else value
        for name, value in settings.items()
        if value is not None
    }


def _verbose() -> int:
    return 1 if sys.stdout.isatty() else 0


def _positive_int(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more; received {text!r}")
    return value


def _positive_float(text: str, largest: float = float("inf")) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= largest or value == float("inf"):
        limit = "" if largest == float("inf") else f" and at most {largest:g}"
        raise argparse.ArgumentTypeError(f"expected a number above 0{limit}; received {text!r}")
    return value


def _fraction(text: str) -> float:
    return _positive_float(text, 1.0)
