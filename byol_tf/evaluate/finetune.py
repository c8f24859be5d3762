"""Fine-tuning on few labels, and the same network trained from scratch on the same labels.

Encoder and linear layer are trained for 25 epochs, as in the STL-10 paper (section 3.2). The
default is meant for few photos: Adam with a rate that is searched and a cosine decay to 0, on
random crops with flips. `STL10` are the settings of the STL-10 paper's authors, `SEMI_SUPERVISED`
those of the BYOL paper.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from sklearn.preprocessing import StandardScaler

from byol_tf.errors import ProtocolError, WorkKept
from byol_tf.evaluate.crops import (
    CROP_AND_FLIP,
    NO_AUGMENTATION,
    centre_crop,
    crop_layer,
    even_batch_size,
    labelled_batches,
)
from byol_tf.evaluate.features import embed
from byol_tf.evaluate.few_labels import fit_few_labels, linear_layer
from byol_tf.evaluate.metrics import TopAccuracies, top_1_and_5, top_k_accuracy
from byol_tf.evaluate.progress import EpochProgress, Show
from byol_tf.logs import counted
from byol_tf.models.construction import freeze_batch_norm, set_weights
from byol_tf.models.inference import at_size, split_inference_model
from byol_tf.models.networks import initialize_from_data
from byol_tf.models.optimizers import Adam
from byol_tf.runs.splits import labelled_fraction, require_labels, stratified_folds
from pipelines.policy import ViewPolicy
from pipelines.sources import Images, subset

FINETUNE_RATES = (1e-4, 3e-4, 1e-3)
SUPERVISED_RATES = (3e-4, 1e-3, 3e-3)
STL10: dict[str, Any] = {
    "rates": (8e-4,),
    "batch_size": 1024,
    "schedule": "constant",
    "weight_decay": 1e-6,
    "policy": NO_AUGMENTATION,
}
"""Settings of zhihua-zhang/BYOL (`main.py`; `SupervisedLightningModule` in `models.py`), for
fine-tuning and from scratch: 1e-4 x 1024 / 128, five steps an epoch of 5,000 images."""
SEMI_SUPERVISED: dict[str, Any] = {
    "rates": (0.005, 0.01, 0.02, 0.05, 0.1),
    "epochs": (30, 50),
    "batch_size": 1024,
    "reference_batch_size": 256,
    "optimizer": "sgd",
    "test_crop": True,
}
"""Settings of the BYOL paper, appendix C.1, for 1% and 10% of ImageNet's labels. The paper names no
schedule: as in the authors' code for linear evaluation, rates are those at a batch of 256 and
decay by a cosine."""
_MOMENTUM = 0.9
_DATA_INIT_IMAGES = 256  # as in pre-training
_WIDENING_FACTOR, _WIDENINGS = 3.0, 3
_ABSENT = -10.0  # logit of a class without an image, where the others' are around 0
_LARGEST_FIT = 10**8
"""Labels x features x classes of a logistic regression of the linear layer: some minutes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuneRecipe:
    """Settings of the training of encoder and linear layer.

    Attributes:
        from_scratch: whether the encoder is initialised anew: the supervised baseline.
        rates: learning rates to try. A single one is used as it is, and no image is held out.
        widen: whether rates beyond these are tried too (see `search_rates`).
        fraction: of the labelled images to use, above 0 and at most 1.
        seeds: number of repetitions, each with its own sample of images, order, crops and
            initial weights.
        epochs: numbers of passes over those images to try.
        batch_size: images per step, at most.
        reference_batch_size: the rate of a step is rate x batch size / this. None: the rate isn't
            scaled.
        optimizer: `adam`, or `sgd` with Nesterov momentum of 0.9.
        schedule: `cosine`, from the rate down to 0, or `constant`.
        weight_decay: L2, of all parameters; of `adam` only.
        policy: of the crops of training images.
        head: start of the linear layer: `random`, or `logistic`, the logistic regression on the
            encoder's features of the training images, so that its first gradients don't distort
            what the encoder knows (Kumar et al. 2022, https://arxiv.org/abs/2202.10054). From
            scratch it is `random` in any case.
        test_crop: whether test and held-out images are their centre, 224 / 256 of the shorter side,
            instead of the largest centred square.
        freeze_batch_norm: whether the encoder's batch normalisation stays as it is, and runs as in
            inference.
    """

    from_scratch: bool
    rates: tuple[float, ...]
    widen: bool = False
    fraction: float = 1.0
    seeds: int = 3
    epochs: tuple[int, ...] = (25,)
    batch_size: int = 128
    reference_batch_size: int | None = None
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    policy: ViewPolicy = CROP_AND_FLIP
    head: Literal["random", "logistic"] = "random"
    test_crop: bool = False
    freeze_batch_norm: bool = False


def tune_protocol(
    inference: keras.Model,
    train: Images,
    test: Images,
    recipe: TuneRecipe,
    seed: int,
    crop_size: int | None = None,
    show: Show = lambda text: None,
    on_trained: Callable[[keras.Model], None] = lambda classifier: None,
) -> dict:
    """Chooses rate and epochs on held-out labels of the first seed, then trains with each seed.

    Args:
        inference: see `models/inference.py`; its encoder is copied.
        train: images with labels.
        test: images with labels.
        recipe: of the training.
        seed: the first one.
        crop_size: side in pixels of the crops to train on. Default: that at which `inference`
            encodes whole images, and with which they are tested in any case.
        show: called after each epoch of a training.
        on_trained: called with the classifier of each seed: an inference model (see
            `models/inference.py`) with a linear layer, from uint8 or uint16 images to logits.

    Returns:
        `top1` and `top5`: means over the seeds; `top1_std`: their standard deviation (n - 1),
        None for one seed; `top1_each`; `fraction`, `labels` (their number), `rate`,
        `held_out_accuracy` of each rate with the chosen `epochs`, `batch_size`; `curve`: loss and
        accuracy of the training images in each epoch of each seed.

    Raises:
        ProtocolError: if there are fewer labels than classes, none can be held out, or
            `inference` is a model of another form; and for head `logistic` with so many labels
            that the regression would take hours.
        ValueError: if the encoder doesn't take images of `crop_size`.
        WorkKept: on Ctrl-C after the first seed, with the result of the finished ones.
    """
    labels, test_labels = require_labels(train), require_labels(test)
    classes = int(max(labels.max(), test_labels.max())) + 1

    def sample(number: int) -> Images:
        return subset(train, labelled_fraction(labels, recipe.fraction, seed + number))

    first = sample(0)
    size = split_inference_model(inference)[2].input_shape[1]
    crop = partial(centre_crop, size=size) if recipe.test_crop else None

    def trained(
        images: Images, rate: float, epochs: int, seed: int
    ) -> tuple[keras.Model, dict[str, list[float]]]:
        progress = EpochProgress(f"training with rate {rate:g}, seed {seed}", show)
        return _train_classifier(
            inference, images, classes, crop_size or size, rate, epochs, recipe, seed, progress
        )

    best, epochs, accuracies = recipe.rates[0], recipe.epochs[0], {}
    if len(recipe.rates) > 1 or len(recipe.epochs) > 1:
        held_out = stratified_folds(require_labels(first), seed)[0]
        training = subset(first, np.flatnonzero(~held_out))
        validation = subset(first, np.flatnonzero(held_out))

        def accuracy(rate: float, epochs: int) -> float:
            scores = embed(trained(training, rate, epochs, seed)[0], validation, crop)
            top1 = top_k_accuracy(scores, require_labels(validation))
            logger.info(
                "rate %g, %d epochs: %.1f%% of the held-out labels", rate, epochs, 100 * top1
            )
            return top1

        searches = {
            tried: search_rates(recipe.rates, partial(accuracy, epochs=tried), recipe.widen)
            for tried in recipe.epochs
        }
        epochs = max(searches, key=lambda tried: max(searches[tried].values()))
        accuracies = searches[epochs]
        best = best_rate(accuracies)
    results: list[TopAccuracies] = []
    curve: list[dict[str, float]] = []

    def summary() -> dict:
        return _over_seeds(results) | {
            "fraction": recipe.fraction,
            "labels": len(first),
            "rate": best,
            "held_out_accuracy": {f"{rate:g}": value for rate, value in accuracies.items()},
            "epochs": epochs,
            "batch_size": even_batch_size(len(first), recipe.batch_size),
            "curve": curve,
        }

    try:
        for number in range(recipe.seeds):
            classifier, history = trained(sample(number), best, epochs, seed + number)
            results.append(top_1_and_5(embed(classifier, test, crop), test_labels))
            on_trained(classifier)
            logger.info("seed %d: %.1f%%", seed + number, 100 * results[-1]["top1"])
            values = zip(history["loss"], history["accuracy"], strict=True)
            curve += [
                {"seed": seed + number, "epoch": epoch, "loss": loss, "accuracy": top1}
                for epoch, (loss, top1) in enumerate(values, start=1)
            ]
    except KeyboardInterrupt:
        if not results:
            raise
        text = f"{len(results)} of {counted(recipe.seeds, 'seed')} finished"
        raise WorkKept(text, summary()) from None
    return summary()


def _over_seeds(results: Sequence[TopAccuracies]) -> dict:
    """Returns means and standard deviation of the accuracies of several seeds."""
    top1 = [result["top1"] for result in results]
    top5 = [result["top5"] for result in results if result["top5"] is not None]
    return {
        "top1": float(np.mean(top1)),
        "top5": float(np.mean(top5)) if top5 else None,
        "top1_std": float(np.std(top1, ddof=1)) if len(top1) > 1 else None,
        "top1_each": top1,
    }


def search_rates(
    rates: Sequence[float], accuracy: Callable[[float], float], widen: bool
) -> dict[float, float]:
    """Tries learning rates, and further ones while the best is the smallest or largest.

    A grid that suits some images can be off by orders of magnitude for others; the best of it is
    then merely its end.

    Args:
        rates: those that are tried in any case.
        accuracy: trains with a rate and returns the accuracy on held-out images.
        widen: whether to try a rate three times beyond an end of those tried while that end is the
            best, three times at most.

    Returns:
        The accuracy of each rate, in the order of trial.
    """
    accuracies = {rate: accuracy(rate) for rate in rates}
    for _ in range(_WIDENINGS if widen else 0):
        best = best_rate(accuracies)
        if best == max(accuracies):
            beyond = best * _WIDENING_FACTOR
        elif best == min(accuracies):
            beyond = best / _WIDENING_FACTOR
        else:
            break
        accuracies[beyond] = accuracy(beyond)
    return accuracies


def best_rate(accuracies: dict[float, float]) -> float:
    """The first of the rates with the highest accuracy."""
    return max(accuracies, key=lambda rate: accuracies[rate])


class CroppingClassifier(keras.Model):
    """Crops, flips and classifies (pixels, params) of `labelled_batches`."""

    def __init__(self, crops: keras.layers.Layer, network: keras.Model):
        super().__init__(dtype="float32")  # no lower precision would hold the crops' parameters
        self.crops, self.network = crops, network
        self.built = True

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns logits `[N, classes]`."""
        return self.network(self.crops(*inputs), training=training)


def _train_classifier(
    inference: keras.Model,
    images: Images,
    classes: int,
    size: int,
    rate: float,
    epochs: int,
    recipe: TuneRecipe,
    seed: int,
    progress: EpochProgress,
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Trains a model from uint8 or uint16 images of any size to logits `[N, classes]`.

    It is trained on crops of `size` pixels, and encodes whole images as `inference` does.

    Returns:
        The model, and `loss` and `accuracy` of each epoch.
    """
    keras.utils.set_random_seed(seed)
    resize, normalize, pretrained = split_inference_model(inference)
    encoder = keras.models.clone_model(pretrained)
    freeze_batch_norm(encoder, recipe.freeze_batch_norm)  # a copy is as in pre-training
    if not recipe.from_scratch:
        set_weights(encoder, pretrained.get_weights())
    on_crops = at_size(encoder, size)
    batch_size = even_batch_size(len(images), recipe.batch_size)
    crops = crop_layer(images, size, recipe.policy)
    batches = labelled_batches(images, size, batch_size, seed, recipe.policy)
    if recipe.from_scratch:
        pixels, params, _ = next(iter(batches))
        initialize_from_data([on_crops], normalize(crops(pixels, params)[:_DATA_INIT_IMAGES]))
    linear = keras.layers.Dense(classes, dtype="float32", name="classifier")
    if recipe.head == "logistic" and not recipe.from_scratch:
        linear.build(pretrained.output_shape)
        linear.set_weights(_logistic_layer(inference, images, classes, seed))
    crop = keras.Input((size, size, images.channels))
    model = CroppingClassifier(crops, keras.Model(crop, linear(on_crops(normalize(crop)))))
    labels, steps = tf.constant(require_labels(images), tf.int64), len(images) // batch_size
    optimizer = _optimizer(recipe, rate, batch_size, steps * epochs)
    # Variables made within the first step, as the optimizer's, would have it traced twice.
    optimizer.build(model.trainable_variables)
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    model.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[accuracy],
        jit_compile=False,
    )
    dataset = batches.map(
        lambda pixels, params, indices: ((pixels, params), tf.gather(labels, indices))
    )
    history = model.fit(
        dataset,
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=[progress],
    )
    photo = keras.Input((None, None, images.channels), dtype=images.dtype.name, name="images")
    pixels = keras.layers.Rescaling(1.0, dtype="float32", name="pixels")  # as in `inference_model`
    representations = encoder(normalize(resize(pixels(photo))), training=False)
    classifier = keras.Model(photo, linear(representations))
    return classifier, history.history


def _logistic_layer(
    inference: keras.Model, images: Images, classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fits logistic regression on the encoder's features.

    Args:
        inference: the encoder.
        images: with labels.
        classes: number of outputs.
        seed: decides which images are held out to choose the regularisation.

    Returns:
        Kernel `[d, classes]` and bias `[classes]` of the same classifier as a linear layer, in
        which a class without an image is improbable.

    Raises:
        ProtocolError: if there are so many labels that it would take hours.
    """
    width = inference.output_shape[-1]
    if len(images) * width * classes > _LARGEST_FIT:
        raise ProtocolError(
            f"--head logistic: expected at most {_LARGEST_FIT:,} labels x features x classes; "
            f"received {len(images):,} x {width:,} x {classes:,}. Use --head random"
        )
    features = embed(inference, images)
    scaler = StandardScaler().fit(features)
    model = fit_few_labels(scaler.transform(features), require_labels(images), seed)
    kernel = np.zeros((width, classes), np.float32)
    bias = np.full(classes, _ABSENT, np.float32)
    kernel[:, model.classes_], bias[model.classes_] = linear_layer(scaler, model)
    return kernel, bias


def _optimizer(
    recipe: TuneRecipe, rate: float, batch_size: int, steps: int
) -> keras.optimizers.Optimizer:
    """Builds the optimizer of a recipe for a training of so many steps."""
    if recipe.reference_batch_size:
        rate *= batch_size / recipe.reference_batch_size
    schedule = (
        keras.optimizers.schedules.CosineDecay(rate, steps) if recipe.schedule == "cosine" else rate
    )
    if recipe.optimizer == "sgd":
        return keras.optimizers.SGD(schedule, momentum=_MOMENTUM, nesterov=True)
    return Adam(schedule, l2=recipe.weight_decay, exclude_1d=False)
