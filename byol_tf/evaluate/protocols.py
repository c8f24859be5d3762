"""The evaluation protocols: their options on the command line, and how each is run.

A new protocol is a module of this package that measures it, here a function that calls it and an
entry of `PROTOCOLS`, and in `__main__` the `_NAME_PREFIXES` of its options. TensorFlow is
imported when a protocol runs, so that `--help` is quick.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from byol_tf.command_line import add_path, positive_float, positive_fraction, positive_int
from byol_tf.config.schema import Config
from byol_tf.errors import OutputError, ProtocolError, WorkKept
from byol_tf.logs import counted
from byol_tf.runs.splits import require_labels
from pipelines.sources import Images, Source

if TYPE_CHECKING:
    import keras

DEFAULT_SEEDS = 3


@dataclass(frozen=True)
class Evaluation:
    """An encoder and the labelled images to evaluate it on.

    Attributes:
        options: of the command.
        config: of the run, or the one that names the images.
        inference: from uint8 or uint16 images `[N, H, W, channels]` to representations `[N, d]`.
        train: images with labels to learn from.
        test: images with labels to test on.
        class_names: names of the labels.
        show: called with what is in progress.
    """

    options: argparse.Namespace
    config: Config
    inference: "keras.Model"
    train: Images
    test: Images
    class_names: tuple[str, ...]
    show: Callable[[str], None]

    def plain_model(self) -> "keras.Model":
        """The inference model as exported, so that a run and its exports agree exactly."""
        from byol_tf.models.inference import exported_form

        if not self.options.run:
            return self.inference
        return exported_form(self.inference)

    def features(
        self, crop: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns features and labels of the training images, then of the test images.

        Args:
            crop: as for `embed`.
        """
        from byol_tf.evaluate.features import embed

        model = self.plain_model()
        train, test = embed(model, self.train, crop), embed(model, self.test, crop)
        return train, require_labels(self.train), test, require_labels(self.test)

    def training_settings(self) -> dict[str, Any]:
        """Returns the training options that were given, by the names of the recipes' attributes."""
        settings = {name: getattr(self.options, name) for name in ("epochs", "batch_size", "rates")}
        return {
            name: tuple(value) if name == "rates" else value
            for name, value in settings.items()
            if value is not None
        }


@dataclass(frozen=True)
class Protocol:
    """A way to evaluate an encoder.

    Attributes:
        summary: for the command's help.
        add_options: adds its options to a parser. Options without a value are None.
        run: returns its results as JSON types. Raises `ProtocolError` if labels or encoder don't
            suit it.
    """

    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Evaluation], dict]


def run_linear(evaluation: Evaluation) -> dict:
    """Runs `linear_protocol`, or with --fast `logistic_protocol`."""
    seed = evaluation.config.seed
    if evaluation.options.fast:
        from byol_tf.evaluate.logistic import logistic_protocol

        return {"fast": True} | logistic_protocol(*evaluation.features(), seed)

    from byol_tf.evaluate.linear import LinearRecipe, linear_protocol

    model = evaluation.plain_model()
    size = evaluation_crop_size(model, evaluation.config)
    recipe = LinearRecipe(**evaluation.training_settings())
    return linear_protocol(
        model, size, evaluation.train, evaluation.test, recipe, seed, evaluation.show
    )


def run_knn(evaluation: Evaluation) -> dict:
    """Runs `knn_accuracy`."""
    from byol_tf.evaluate.knn import knn_accuracy

    options, defaults = evaluation.options, evaluation.config.probe
    neighbours = options.neighbours or defaults.neighbours
    temperature = None if options.uniform else options.temperature or defaults.temperature
    return {
        "top1": knn_accuracy(*evaluation.features(), neighbours, temperature),
        "neighbours": neighbours,
        "temperature": temperature,
    }


def run_transfer(evaluation: Evaluation) -> dict:
    """Runs `logistic_protocol` with the settings of the BYOL paper's transfer protocol."""
    from byol_tf.evaluate.crops import centre_crop
    from byol_tf.evaluate.logistic import TRANSFER_STRENGTHS, logistic_protocol

    size = evaluation_crop_size(evaluation.inference, evaluation.config)
    features = evaluation.features(partial(centre_crop, size=size, fraction=1.0))
    seed = evaluation.config.seed
    return logistic_protocol(*features, seed, TRANSFER_STRENGTHS, standardize=False)


def run_finetune(evaluation: Evaluation) -> dict:
    """Runs `tune_protocol` from the encoder's weights."""
    from byol_tf.evaluate.finetune import FINETUNE_RATES, STL10

    stl10 = evaluation.options.preset == "stl10"
    settings = STL10 if stl10 else {"rates": FINETUNE_RATES, "widen": True}
    options = evaluation.options
    given = {"freeze_batch_norm": options.freeze_batch_norm, "head": options.head}
    settings = settings | {name: value for name, value in given.items() if value is not None}
    return _tune(evaluation, settings, from_scratch=False)


def run_supervised(evaluation: Evaluation) -> dict:
    """Runs `tune_protocol` from scratch."""
    from byol_tf.evaluate.finetune import STL10, SUPERVISED_RATES

    stl10 = evaluation.options.preset == "stl10"
    settings = STL10 if stl10 else {"rates": SUPERVISED_RATES, "widen": True}
    return _tune(evaluation, settings, from_scratch=True)


def run_semi_supervised(evaluation: Evaluation) -> dict:
    """Runs `tune_protocol` with the settings of the BYOL paper's semi-supervised protocol."""
    from byol_tf.evaluate.finetune import SEMI_SUPERVISED

    return _tune(evaluation, SEMI_SUPERVISED, from_scratch=False)


def _tune(evaluation: Evaluation, settings: dict[str, Any], from_scratch: bool) -> dict:
    """Runs `tune_protocol` with a protocol's settings, changed by the options that were given."""
    from byol_tf.evaluate.finetune import TuneRecipe, tune_protocol

    options, given = evaluation.options, evaluation.training_settings()
    if "rates" in given:
        given["widen"] = False
    if "epochs" in given:
        given["epochs"] = (given["epochs"],)
    if getattr(options, "augment", None) == "views":
        given["policy"] = evaluation.config.views.first.sharp()
    recipe = TuneRecipe(
        from_scratch, fraction=options.fraction, seeds=options.seeds, **settings | given
    )
    classifiers: list[keras.Model] = []

    def keep_first(classifier: "keras.Model") -> None:
        if not classifiers:
            classifiers.append(classifier)

    result = tune_protocol(
        evaluation.inference,
        evaluation.train,
        evaluation.test,
        recipe,
        evaluation.config.seed,
        evaluation.config.views.size if options.run else None,
        evaluation.show,
        keep_first,
    )
    if getattr(options, "export", None) is not None:
        try:
            result["export"] = _export(evaluation, classifiers[0], result, from_scratch)
        except (OSError, OutputError) as error:
            result["export_error"] = f"--export {options.export}: {error}"
        except KeyboardInterrupt:
            text = "all seeds finished, but the classifier isn't exported"
            raise WorkKept(text, result) from None
    return result


def _export(
    evaluation: Evaluation, classifier: "keras.Model", result: dict, from_scratch: bool
) -> dict:
    """Exports the classifier of the first seed; returns where it is."""
    from byol_tf.export.classifier import ClassifierFacts, export_classifier
    from byol_tf.runs.accuracy import Accuracy
    from byol_tf.runs.sources import pixel_format

    test, folder = evaluation.test, Path(evaluation.options.export)
    learned = "Trained from scratch" if from_scratch else "An encoder, fine-tuned with its head,"
    facts = ClassifierFacts(
        name=f"{evaluation.config.name}, {'supervised' if from_scratch else 'fine-tuned'}",
        made=f"{learned} on {result['labels']:,} labelled images of "
        f"`{evaluation.config.data.source}` for {counted(result['epochs'], 'epoch')}, with a "
        f"learning rate of {result['rate']:g} and seed {evaluation.config.seed}.",
        accuracy=Accuracy(result["top1_each"][0], len(test)),
        accuracy_note="on test images",
    )
    images = [test[number] for number in range(min(len(test), 100))]
    pixels = pixel_format(evaluation.config)
    files = export_classifier(classifier, evaluation.class_names, folder, images, facts, pixels)
    return {"folder": str(folder), "files": files}


def _linear_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fast", action="store_true", help="logistic regression on features computed once"
    )
    _training_options(parser, "80", "the BYOL paper's, at a batch of 256, and larger ones")


def _knn_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--neighbours",
        type=positive_int,
        metavar="K",
        help="number of votes (default: the config's probe.neighbours)",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--temperature",
        type=positive_float,
        metavar="T",
        help="weigh votes by exp(cosine / T) (default: probe.temperature)",
    )
    weights.add_argument("--uniform", action="store_true", help="weigh all votes the same")


def _finetune_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--freeze-batch-norm",
        action="store_true",
        help="keep the encoder's batch statistics, scales and offsets: for an encoder that was "
        "trained on photos of another kind or size",
    )
    parser.add_argument(
        "--head",
        choices=("random", "logistic"),
        help="start of the linear layer; logistic: fitted on the frozen features first, better "
        "with few labels (default: random)",
    )
    _tuning_options(parser)


def _tuning_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset",
        choices=("stl10",),
        help="settings of the STL-10 paper's authors: Adam at a constant 8e-4, decay 1e-6, batches "
        "of 1024, no augmentation",
    )
    parser.add_argument(
        "--augment",
        choices=("views",),
        help="views: train on crops and colours of the config's first view, without blur; better "
        "with few labels (default: random crops and flips; with --preset the whole image)",
    )
    add_path(
        parser,
        "--export",
        "new folder for the classifier of the first seed, in each format whose packages are "
        "installed",
    )
    _label_options(parser, 1.0)
    _training_options(
        parser, "25", "three, half a power of ten apart, and further ones beyond the best end"
    )


def _semi_supervised_options(parser: argparse.ArgumentParser) -> None:
    _label_options(parser, 0.1)
    _training_options(parser, "30 and 50 are tried", "the BYOL paper's")


def _label_options(parser: argparse.ArgumentParser, fraction: float) -> None:
    parser.add_argument(
        "--fraction",
        type=positive_fraction,
        default=fraction,
        metavar="F",
        help=f"fraction of the labelled images to use (default: {fraction:g})",
    )
    parser.add_argument(
        "--seeds",
        type=positive_int,
        default=DEFAULT_SEEDS,
        metavar="N",
        help=f"repetitions, for mean and standard deviation (default: {DEFAULT_SEEDS})",
    )


def _training_options(parser: argparse.ArgumentParser, epochs: str, rates: str) -> None:
    parser.add_argument(
        "--epochs",
        type=positive_int,
        metavar="N",
        help=f"passes over the labelled images (default: {epochs})",
    )
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        metavar="N",
        help="images per step, at most (default: 1024; finetune and supervised without --preset: "
        "128)",
    )
    parser.add_argument(
        "--rates",
        type=positive_float,
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
    "transfer": Protocol(
        "logistic regression on other images, as in the BYOL paper: 45 penalties, no augmentation",
        lambda parser: None,
        run_transfer,
    ),
    "semi-supervised": Protocol(
        "the BYOL paper's for few labels: encoder and linear layer trained by SGD",
        _semi_supervised_options,
        run_semi_supervised,
    ),
    "finetune": Protocol(
        "encoder and linear layer trained on a fraction of the labels",
        _finetune_options,
        run_finetune,
    ),
    "supervised": Protocol(
        "the same network from scratch on the same labels: the baseline",
        _tuning_options,
        run_supervised,
    ),
}


def check_labelled(config: Config) -> None:
    """Checks that a config names labelled images, as far as is seen without opening them.

    Raises:
        ProtocolError: if there are no labelled images to learn from, or none to test on.
        SourceError: if there are no images.
    """
    from byol_tf.runs.sources import source_options
    from pipelines.sources import plan_source

    counts = plan_source(**source_options(config)).counts
    if missing := [split for split in ("train", "test") if not counts[split]]:
        raise ProtocolError(
            "data: expected labelled images to learn from and others to test on; data.source "
            f'"{config.data.source}" has no {" and no ".join(missing)} here. A folder needs '
            "train/<class>/ and test/<class>/, or class folders"
        )


def labelled_source(
    config: Config, on_progress: Callable[[str, int, int], None]
) -> tuple[Source, Images, Images]:
    """Opens the labelled images of a config, and no unlabelled ones.

    `check_labelled` has to have found some of both splits.

    Args:
        config: with the source.
        on_progress: as of `open_source`.

    Returns:
        The source, its training images and its test images.

    Raises:
        SourceError: if images can't be read.
    """
    from byol_tf.runs.sources import source_options
    from pipelines.sources import open_source

    source = open_source(
        **(source_options(config) | {"pretrain": "train"}), on_progress=on_progress
    )
    # `check_labelled` has counted both.
    return source, source.train, source.test  # type: ignore[return-value]


def evaluation_crop_size(inference: "keras.Model", config: Config) -> int:
    """Returns the side of the encoder's input in pixels; `views.size` if it isn't known."""
    from byol_tf.models.inference import split_inference_model

    try:
        return split_inference_model(inference)[2].input_shape[1]
    except ProtocolError:
        return config.views.size
