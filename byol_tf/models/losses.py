"""Losses of BYOL, SimSiam and SimCLR, and measures of collapse.

BYOL, and the extended InfoNCE that joins it to SimCLR: Grill et al., "Bootstrap your own latent",
2020, https://arxiv.org/abs/2006.07733. SimSiam: Chen and He, "Exploring simple Siamese
representation learning", 2020, https://arxiv.org/abs/2011.10566. SimCLR: Chen et al., "A simple
framework for contrastive learning of visual representations", 2020,
https://arxiv.org/abs/2002.05709.
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import keras
import tensorflow as tf

from byol_tf.errors import check_choice

_EPSILON = 1e-12  # on the squared sum, as deepmind-research byol/utils/helpers.py


def normalize(vectors: tf.Tensor) -> tf.Tensor:
    """Returns the rows of `[N, d]` scaled to length 1, in float32."""
    return tf.math.l2_normalize(tf.cast(vectors, tf.float32), axis=-1, epsilon=_EPSILON)


def regression_loss(prediction: tf.Tensor, projection: tf.Tensor) -> tf.Tensor:
    """Squared distance of the normalised vectors, 2 - 2 cos (BYOL paper, equation 2).

    Args:
        prediction: `[N, d]`, any float dtype.
        projection: `[N, d]`, any float dtype; apply `tf.stop_gradient` before the call if it is a
            target.

    Returns:
        float32 `[N]`, from 0 (same direction) to 4 (opposite); about 2 for unrelated vectors.
    """
    return tf.reduce_sum(
        tf.math.squared_difference(normalize(prediction), normalize(projection)), axis=-1
    )


def cross_entropy(prediction: tf.Tensor, projection: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of the softmax of prediction and projection (SimSiam report, section IV.E).

    Args:
        prediction: logits `[N, d]`, any float dtype.
        projection: logits `[N, d]`, any float dtype.

    Returns:
        float32 `[N]`, from 0; log d for constant vectors.
    """
    probabilities = tf.nn.softmax(tf.cast(projection, tf.float32), axis=-1)
    return -tf.reduce_sum(
        probabilities * tf.nn.log_softmax(tf.cast(prediction, tf.float32), axis=-1), axis=-1
    )


def negative_term(
    prediction: tf.Tensor, same_view: tf.Tensor, other_view: tf.Tensor, temperature: float
) -> tf.Tensor:
    """The term that the extended InfoNCE adds for beta = 1 (BYOL paper, equation 8).

    2 alpha ln(sum of exp(cosine / alpha)): the sum runs over the projections of both views of every
    image of the batch but the prediction's own view. Other replicas' images count too, and
    gradients flow to them.

    Args:
        prediction: `[N, d]`.
        same_view: projections `[N, d]` of the view that the prediction is made from.
        other_view: projections `[N, d]` of the other view.
        temperature: alpha.

    Returns:
        float32 `[N]`.
    """
    prediction, same_view, other_view = (
        normalize(prediction),
        normalize(same_view),
        normalize(other_view),
    )
    count = tf.shape(prediction)[0]
    first = tf.distribute.get_replica_context().replica_id_in_sync_group * count
    similar = tf.matmul(prediction, gather_over_replicas(same_view), transpose_b=True) / temperature
    itself = tf.one_hot(
        first + tf.range(count), tf.shape(similar)[1], on_value=similar.dtype.min, off_value=0.0
    )
    across = tf.matmul(prediction, gather_over_replicas(other_view), transpose_b=True) / temperature
    return (
        2.0
        * temperature
        * tf.reduce_logsumexp(tf.concat([similar + itself, across], axis=1), axis=1)
    )


def gather_over_replicas(rows: tf.Tensor) -> tf.Tensor:
    """Returns the rows `[N, d]` of all R replicas, `[R N, d]`, with gradients back to each."""
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return rows
    # A sum of slices, as its gradient is known on every device; that of `all_gather` is not.
    own_slice = tf.one_hot(context.replica_id_in_sync_group, replicas, dtype=rows.dtype)
    slices = tf.reshape(own_slice, (replicas, 1, 1)) * rows[None]  # [R, N, d], 0 but for its own
    return tf.reshape(context.all_reduce(tf.distribute.ReduceOp.SUM, slices), (-1, rows.shape[-1]))


@keras.saving.register_keras_serializable(package="byol_tf")
@dataclass(frozen=True)
class Objective:
    """Configurable loss of BYOL, SimSiam and SimCLR (extended InfoNCE).

    Example:
        `Objective()` is BYOL's loss, `Objective(weight=0.25)` SimSiam's and
        `Objective(negatives=1.0, temperature=0.1, weight=5.0)` that of SimCLR's code plus a
        constant.

    Attributes:
        similarity: `cosine`, or `cross_entropy` (SimSiam report, section IV.E).
        symmetrization: `symmetric`: each view predicts the other; `asymmetric`: the first predicts
            the second; `asymmetric_2x`: the first predicts the second and the third the fourth, two
            pairs of views of each image (SimSiam report, section IV.F). Losses are added.
        negatives: beta of the extended InfoNCE, 0 to 1: 0 is BYOL's loss, 1 gives 2 alpha times
            SimCLR's, plus a constant (BYOL paper, equation 8).
        temperature: alpha of the same; needed where `negatives` isn't 0.
        weight: multiplies the loss. With beta 1, 1 / (2 alpha) gives the scale of SimCLR's code
            (google-research/simclr `tf2/objective.py`), which adds the means of both directions,
            and 1 / (4 alpha) that of its paper, the mean over all 2 N views.

    Raises:
        ValueError: for another similarity or symmetrization, and for negatives outside 0 to 1,
            without temperature or with cross-entropy.
    """

    similarity: str = "cosine"
    symmetrization: str = "symmetric"
    negatives: float = 0.0
    temperature: float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_choice("similarity", self.similarity, ("cosine", "cross_entropy"))
        check_choice("symmetrization", self.symmetrization, tuple(_PREDICTS))
        if not 0.0 <= self.negatives <= 1.0:
            raise ValueError(
                f"negatives: expected a number from 0 to 1; received {self.negatives!r}"
            )
        if self.negatives and self.similarity != "cosine":
            raise ValueError('negatives: expected 0, as similarity "cross_entropy" has none')
        if self.negatives and not (self.temperature or 0.0) > 0.0:
            raise ValueError(
                f"temperature: expected a number above 0, as negatives is {self.negatives:g}; "
                f"received {self.temperature!r}"
            )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, for Keras to save a model with."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Builds an objective from what `get_config` returns."""
        return cls(**config)

    @property
    def predicts(self) -> tuple[tuple[int, int], ...]:
        """Pairs (predicting view, view whose target projection it predicts), counted from 0."""
        return _PREDICTS[self.symmetrization]

    @property
    def predicting_views(self) -> tuple[int, ...]:
        """Views that predictions are made from."""
        return tuple(view for view, _ in self.predicts)

    @property
    def target_views(self) -> tuple[int, ...]:
        """Views that target projections are made from.

        Negatives also come from the predicting view.
        """
        views = {other for _, other in self.predicts} | (
            set(self.predicting_views) if self.negatives else set()
        )
        return tuple(sorted(views))

    @property
    def view_count(self) -> int:
        """Number of views of each image."""
        return 1 + max(max(pair) for pair in self.predicts)

    def __call__(
        self, predictions: dict[int, tf.Tensor], targets: dict[int, tf.Tensor]
    ) -> tf.Tensor:
        """Returns the loss, a float32 scalar: the mean over the batch, directions added.

        Args:
            predictions: view -> `[N, d]`, for `predicting_views`.
            targets: view -> `[N, d]`, for `target_views`, with gradients stopped where they should
                be.
        """
        loss = regression_loss if self.similarity == "cosine" else cross_entropy
        total = 0.0
        for view, other in self.predicts:
            losses = loss(predictions[view], targets[other])  # [N]
            if self.negatives and self.temperature:
                losses += self.negatives * negative_term(
                    predictions[view], targets[view], targets[other], self.temperature
                )
            total += tf.reduce_mean(losses)
        return self.weight * total


_PREDICTS = {
    "symmetric": ((0, 1), (1, 0)),
    "asymmetric": ((0, 1),),
    "asymmetric_2x": ((0, 1), (2, 3)),
}


def projection_std(projection: tf.Tensor) -> tf.Tensor:
    """Returns the standard deviation of normalised projections `[N, d]`, times sqrt(d).

    It is taken over the batch and averaged over the d coordinates: a float32 scalar near 1 for
    vectors scattered over the sphere, 0 for collapsed ones (SimSiam report, section IV.A).
    """
    vectors = normalize(projection)
    deviation = tf.math.reduce_std(vectors, axis=0)
    return tf.reduce_mean(deviation) * tf.sqrt(tf.cast(tf.shape(vectors)[-1], tf.float32))


def mean_cosine(projection: tf.Tensor) -> tf.Tensor:
    """Returns the mean cosine between projections `[N, d]` of different images.

    A float32 scalar: near 0 for scattered projections, 1 for collapsed ones; 0 for a single one.
    """
    vectors = normalize(projection)
    count = tf.cast(tf.shape(vectors)[0], tf.float32)
    total = tf.reduce_sum(tf.square(tf.reduce_sum(vectors, axis=0)))
    return tf.math.divide_no_nan(total - count, count * (count - 1.0))
