"""What a run's encoder makes of its images, beside the network that it was before its first
step."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from byol_tf.config.schema import Config
from byol_tf.devices import set_seeds
from byol_tf.errors import ConfigError
from byol_tf.evaluate.features import embed
from byol_tf.evaluate.logistic import linear_predictions
from byol_tf.evaluate.metrics import spectrum
from byol_tf.models.from_config import build_config_encoder
from byol_tf.models.inference import inference_model
from byol_tf.runs.data import probe_images, sample_pretrain_images
from byol_tf.runs.encoders import starting_weights
from pipelines.sources import Images, Source, balanced_indices, subset

# images for neighbours and map: a second of t-SNE each thousand, and an eye takes in no more
_SHOWN = 1000


@dataclass(frozen=True)
class RepresentationAnalysis:
    """Images through an encoder.

    Attributes:
        images: at most 1,000: of the probe's test images, each class its share; without labels, of
            those that were learned from.
        labels: int64 of `images`, or None.
        class_names: of labels.
        trained: representations of `images`, float32 `[n, d]`.
        untrained: the same of the network as it was before its first step; None where its weights
            aren't to be had any more.
        spectra: "trained" and, where it is to be had, "untrained": see `spectrum`, of images that
            were learned from.
        actual: labels of all the probe's test images, int64; None without labels.
        predicted: what the linear probe takes them for.
    """

    images: Images
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    trained: np.ndarray
    untrained: np.ndarray | None
    spectra: dict[str, np.ndarray]
    actual: np.ndarray | None
    predicted: np.ndarray | None


def analyze_representations(
    config: Config, inference: keras.Model, source: Source
) -> RepresentationAnalysis:
    """Looks at a run's images through its encoder, and through the one that it started as.

    Args:
        config: of the run.
        inference: the inference model around the trained encoder.
        source: its images.

    Raises:
        SourceError: if images can't be read any more.
    """
    tf.get_logger().setLevel(
        "ERROR"
    )  # it would warn that two networks are traced, and anew for batches of another size
    start = start_model(config)
    spectrum_images = sample_pretrain_images(config, source)
    spectra = {"trained": spectrum(embed(inference, spectrum_images))}
    if start is not None:
        spectra["untrained"] = spectrum(embed(start, spectrum_images))
    actual = predicted = None
    if source.train is not None and source.test is not None:
        train, test = probe_images(config, source)
        features, actual = embed(inference, test), test.labels
        predicted = linear_predictions(embed(inference, train), train.labels, features)
        shown = balanced_indices(actual, _SHOWN, config.seed)
        images, trained = subset(test, shown), features[shown]
    else:
        images = sample_pretrain_images(config, source, _SHOWN)
        trained = embed(inference, images)
    untrained = None if start is None else embed(start, images)
    return RepresentationAnalysis(
        images, images.labels, source.class_names, trained, untrained, spectra, actual, predicted
    )


def start_model(config: Config) -> keras.Model | None:
    """The inference model of a run's network before its first step: drawn from its seed as the run
    has drawn it, or with the weights that it started from; None if these aren't there any more.
    (`data_init` scales, which come from a batch, are left at 1.)"""
    set_seeds(config.seed, False)
    encoder = build_config_encoder(config)
    if config.encoder.weights is not None:
        try:
            weights = starting_weights(config.encoder.weights, encoder, config.views)
        except ConfigError:
            return None
        for name, arrays in weights.items():
            encoder.get_layer(name).set_weights(arrays)
    return inference_model(encoder, *config.views.preparation)
