"""What BYOL compares and how its target follows (BYOL paper, sections 3.1 to 3.3; SimSiam report, section IV.A)."""

import numpy as np


def normalized(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.sqrt(np.maximum((vectors**2).sum(axis=-1, keepdims=True), 1e-12))


def regression_loss(prediction, projection):
    """For each row |p|^2 + |z|^2 - 2 p z of the normalised vectors: 2 - 2 cos, and 1 where one of them is zero."""
    p, z = normalized(prediction), normalized(projection)
    return (p * p).sum(axis=-1) + (z * z).sum(axis=-1) - 2.0 * (p * z).sum(axis=-1)


def byol_loss(predictions, target_projections):
    """Both directions added, mean over the batch; each argument is (of view 1, of view 2)."""
    directions = regression_loss(predictions[0], target_projections[1]) + regression_loss(predictions[1], target_projections[0])
    return directions.mean()


def spread(vectors):
    vectors = normalized(vectors)
    return vectors.std(axis=0).mean() * np.sqrt(vectors.shape[1])


def mean_cosine(vectors):
    """Over all ordered pairs of different rows."""
    cosines = normalized(vectors) @ normalized(vectors).T
    return cosines[~np.eye(len(cosines), dtype=bool)].mean()


def cosine_tau(step, total_steps, base, end=1.0):
    if end == 1.0:
        return 1.0 - (1.0 - base) * (np.cos(np.pi * step / total_steps) + 1.0) / 2.0  # the paper's own form
    return base + (end - base) * np.sin(np.pi / 2.0 * step / total_steps) ** 2


def followed(target, online, tau):
    """The paper's xi <- tau xi + (1 - tau) theta."""
    return tau * target + (1.0 - tau) * online
