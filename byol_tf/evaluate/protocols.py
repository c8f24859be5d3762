"""From what the command was asked to the protocol that does it."""

import argparse
import sys
from collections.abc import Callable

import keras

from byol_tf.config.schema import Config
from byol_tf.errors import ProtocolError
from byol_tf.evaluate.features import embed
from byol_tf.evaluate.finetune import FINETUNE_RATES, SUPERVISED_RATES, TuneRecipe, tune_protocol
from byol_tf.evaluate.knn import knn_accuracy
from byol_tf.evaluate.linear import LinearRecipe, linear_protocol
from byol_tf.evaluate.logistic import logistic_protocol
from byol_tf.models.inference import exported_form, split_inference_model
from byol_tf.runs.data import source_options
from pipelines.sources import Source, open_source, plan_source


def evaluation_crop_size(inference: keras.Model, config: Config) -> int:
    """Side of the crops that an encoder is judged on: of its own input where it says so, else the
    config's views."""
    try:
        return split_inference_model(inference)[2].input_shape[1]
    except ProtocolError:
        return config.views.size


def labelled_source(config: Config, on_progress: Callable[[str, int, int], None]) -> Source:
    """The labelled images of a config; unlabelled ones are not read. Raises `SourceError`, and
    `ProtocolError` without labels."""
    options = source_options(config)
    counts = plan_source(**options).counts
    missing = [split for split in ("train", "test") if not counts[split]]
    if missing:
        raise ProtocolError(
            "data: expected labelled images to learn from and others to be judged on; data.source "
            f'"{config.data.source}" has no '
            f"{' and no '.join(missing)} here. A folder needs train/<class>/ and test/<class>/, or "
            "class folders"
        )
    return open_source(**(options | {"pretrain": "train"}), on_progress=on_progress)


def run_protocol(
    options: argparse.Namespace,
    config: Config,
    inference: keras.Model,
    source: Source,
    say: Callable[[str], None],
) -> dict:
    """What a protocol measures, and with which settings.

    Args:
        options: of the command.
        config: which seed, and the defaults of the nearest-neighbour vote.
        inference: from uint8 images to representations.
        source: with labels.
        say: prints a line for people.

    Raises:
        ProtocolError: if the labels or the encoder don't go with the protocol.
    """
    given = {name: value for name, value in vars(options).items() if value is not None}
    verbose = 1 if sys.stdout.isatty() else 0
    train, test, seed = source.train, source.test, config.seed
    training = {name: given[name] for name in ("epochs", "batch_size") if name in given}
    if "rates" in given:
        training["rates"] = tuple(given["rates"])
    if options.protocol in ("finetune", "supervised"):
        from_scratch = options.protocol == "supervised"
        rates = {"rates": SUPERVISED_RATES if from_scratch else FINETUNE_RATES}
        widen = "rates" not in training
        recipe = TuneRecipe(
            from_scratch,
            **(rates | training),
            widen=widen,
            fraction=options.fraction,
            seeds=options.seeds,
        )
        return tune_protocol(inference, train, test, recipe, seed, say, verbose)
    if options.run:
        inference = exported_form(inference, *config.views.preparation)
    if options.protocol == "linear" and not options.fast:
        return linear_protocol(
            inference,
            evaluation_crop_size(inference, config),
            train,
            test,
            LinearRecipe(**training),
            seed,
            verbose,
        )
    features = embed(inference, train), train.labels, embed(inference, test), test.labels
    if options.protocol == "linear":
        return {"fast": True} | logistic_protocol(*features, seed)
    neighbours = given.get("neighbours", config.probe.neighbours)
    temperature = None if options.uniform else given.get("temperature", config.probe.temperature)
    return {
        "top1": knn_accuracy(*features, neighbours, temperature),
        "neighbours": neighbours,
        "temperature": temperature,
    }
