"""How far a prediction is from its target projection."""

import tensorflow as tf

_EPSILON = 1e-12  # on the squared sum, as deepmind-research byol/utils/helpers.py


def normalize(vectors: tf.Tensor) -> tf.Tensor:
    """Scales each row of `[N, d]` to length 1, in float32."""
    return tf.math.l2_normalize(tf.cast(vectors, tf.float32), axis=-1, epsilon=_EPSILON)


def regression_loss(prediction: tf.Tensor, projection: tf.Tensor) -> tf.Tensor:
    """Squared distance of the normalised vectors, 2 - 2 cos (BYOL paper, equation 2).

    Args:
        prediction: `[N, d]`, any float dtype.
        projection: `[N, d]`, any float dtype; the caller stops its gradient.

    Returns:
        float32 `[N]`, from 0 (same direction) to 4 (opposite); about 2 for unrelated vectors.
    """
    return tf.reduce_sum(tf.math.squared_difference(normalize(prediction), normalize(projection)), axis=-1)


def spread(projection: tf.Tensor) -> tf.Tensor:
    """Standard deviation over the batch of the normalised projection, averaged over its d coordinates, times sqrt(d).

    float32 scalar: near 1 for vectors scattered over the sphere, 0 for collapsed ones (SimSiam report, section IV.A).
    """
    vectors = normalize(projection)
    deviation = tf.math.reduce_std(vectors, axis=0)
    return tf.reduce_mean(deviation) * tf.sqrt(tf.cast(tf.shape(vectors)[-1], tf.float32))


def mean_cosine(projection: tf.Tensor) -> tf.Tensor:
    """Mean cosine between the projections `[N, d]` of different images: float32 scalar, near 0 when healthy, 1 when collapsed."""
    vectors = normalize(projection)
    count = tf.cast(tf.shape(vectors)[0], tf.float32)
    total = tf.reduce_sum(tf.square(tf.reduce_sum(vectors, axis=0)))
    return (total - count) / (count * (count - 1.0))
