"""Representations of a run's images before and after training."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from byol_tf.config.schema import Config
from byol_tf.devices import set_seeds
from byol_tf.errors import ConfigError
from byol_tf.evaluate.features import embed
from byol_tf.evaluate.logistic import linear_predictions
from byol_tf.evaluate.metrics import effective_rank, spectrum
from byol_tf.models.construction import set_weights
from byol_tf.models.from_config import build_config_encoder, config_inference_model
from byol_tf.runs.data import probe_images, sample_pretrain_images
from byol_tf.runs.encoders import is_built_by_name
from byol_tf.runs.starting_weights import starting_weights
from pipelines.sources import Images, Source, balanced_indices, subset

_MAX_IMAGES = 1000
"""Images for neighbours and map: t-SNE takes a second a thousand, and more can't be surveyed."""


@dataclass(frozen=True)
class RepresentationAnalysis:
    """Representations of a run's images, of the trained network and of the one before training.

    Attributes:
        images: at most 1,000 of the images that the probe is tested on, class-balanced; without
            labels, a random sample of the images to learn from.
        labels: int64 `[n]`, of `images`; None without labels.
        class_names: names of the labels.
        trained: float32 `[n, d]`, representations of `images` by the trained network.
        untrained: the same by the network before its first step; None where its weights aren't
            available any more.
        spectra: "trained" and, where available, "untrained" -> the singular values as fractions of
            their sum (see `evaluate.metrics.spectrum`), of the images that collapse is measured on.
        effective_ranks: the same keys -> the effective rank of the same representations.
        test_labels: int64, labels of all images that the probe is tested on; None without labels.
        predicted_labels: int64, the linear probe's predictions for them; None without labels.
    """

    images: Images
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    trained: np.ndarray
    untrained: np.ndarray | None
    spectra: dict[str, np.ndarray]
    effective_ranks: dict[str, float]
    test_labels: np.ndarray | None
    predicted_labels: np.ndarray | None


def analyze_representations(
    config: Config, inference: keras.Model, source: Source
) -> RepresentationAnalysis:
    """Embeds a run's images by its trained encoder, and by the encoder as it started.

    Args:
        config: of the run.
        inference: the inference model around the trained encoder.
        source: the run's images.

    Raises:
        SourceError: if images can't be read any more.
    """
    # It would warn that two networks are traced, and again for batches of another size.
    tf.get_logger().setLevel("ERROR")
    start = start_model(config)
    models = {"trained": inference} if start is None else {"trained": inference, "untrained": start}
    sample = sample_pretrain_images(config, source)
    sample_features = {name: embed(model, sample) for name, model in models.items()}
    test_labels = predicted_labels = None
    labelled = probe_images(config, source)
    if labelled is not None:
        train, test = labelled
        train_labels, test_labels = np.asarray(train.labels), np.asarray(test.labels)
        features = embed(inference, test)
        predicted_labels = linear_predictions(embed(inference, train), train_labels, features)
        shown = balanced_indices(test_labels, _MAX_IMAGES, config.seed)
        images, trained = subset(test, shown), features[shown]
    else:
        images = sample_pretrain_images(config, source, _MAX_IMAGES)
        trained = embed(inference, images)
    return RepresentationAnalysis(
        images=images,
        labels=images.labels,
        class_names=source.class_names,
        trained=trained,
        untrained=None if start is None else embed(start, images),
        spectra={name: spectrum(features) for name, features in sample_features.items()},
        effective_ranks={
            name: effective_rank(features) for name, features in sample_features.items()
        },
        test_labels=test_labels,
        predicted_labels=predicted_labels,
    )


def start_model(config: Config) -> keras.Model | None:
    """Rebuilds the inference model of a run's network before its first step.

    Its weights are initialised from the run's seed as they were then, or read from the file that
    the run started from. The scales of `data_init`, which come from a batch, stay at 1.

    Args:
        config: of the run.

    Returns:
        The model; None if the file isn't available any more, or if code of one's own built it.
    """
    if not is_built_by_name(config):
        return None
    set_seeds(config.seed, False)
    encoder = build_config_encoder(config)
    if config.encoder.weights is not None:
        try:
            weights = starting_weights(config.encoder.weights, encoder, config)
        except ConfigError:
            return None
        for name, arrays in weights.items():
            set_weights(encoder.get_layer(name), arrays)
    return config_inference_model(encoder, config)
