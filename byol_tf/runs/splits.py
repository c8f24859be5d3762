"""Selection and hold-out of labelled images. Test labels decide nothing."""

import numpy as np

from byol_tf.errors import ProtocolError
from pipelines.sources import Images, balanced_indices, subset

_FOLDS = 5
"""A fifth of the training labels chooses learning rate and regularisation (the BYOL paper holds out
10,009 of ImageNet's 1.28 million images)."""


def require_labels(images: Images) -> np.ndarray:
    """Returns the labels of images, int64 `[n]`.

    Raises:
        ProtocolError: if they have none.
    """
    if images.labels is None:
        raise ProtocolError("expected images with labels; these have none")
    return images.labels


def labelled_fraction(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Samples a fraction of the labelled images, class-balanced as far as there are images for it.

    Args:
        labels: int `[n]`.
        fraction: of n, above 0 and at most 1.
        seed: of the sample.

    Returns:
        int64, ascending indices.

    Raises:
        ProtocolError: if there would be fewer images than classes.
    """
    count, classes = round(fraction * len(labels)), len(np.unique(labels))
    if count < classes:
        smallest = np.ceil(1e4 * classes / len(labels)) / 1e4
        raise ProtocolError(
            f"--fraction: expected at least {smallest:g}, an image of each of the {classes} "
            f"classes; received {fraction:g}, which is {count} of {len(labels):,} labelled images"
        )
    return balanced_indices(labels, count, seed)


def stratified_folds(labels: np.ndarray, seed: int) -> np.ndarray:
    """Samples up to five disjoint sets of images to hold out, each with a fifth of every class.

    A fold has at least one image of a class with two, and never all images of a class; of a class
    with few images only the first folds have one. (scikit-learn's `StratifiedKFold` chooses other
    images than those that this repository's figures were measured with.)

    Args:
        labels: int `[n]`.
        seed: of the sample.

    Returns:
        bool `[folds, n]`, True where a fold holds an image out; no fold is empty.

    Raises:
        ProtocolError: if no class has two images.
    """
    rng = np.random.default_rng(seed)
    folds = np.zeros((_FOLDS, len(labels)), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        size = min(max(1, round(len(members) / _FOLDS)), len(members) - 1)
        for number, fold in enumerate(folds):
            fold[members[number * size : (number + 1) * size]] = True
    if not folds.any():
        raise ProtocolError(
            "expected a class with at least two labelled images, so that one can be held out to "
            "choose settings; each has one"
        )
    return folds[folds.any(axis=1)]


def hold_out(images: Images, seed: int) -> tuple[Images, Images]:
    """Splits labelled images in two.

    Args:
        images: with labels.
        seed: of the sample.

    Returns:
        (the other images, a fifth of each class that is held out: the first of `stratified_folds`).

    Raises:
        ProtocolError: as `stratified_folds`.
    """
    held_out = stratified_folds(require_labels(images), seed)[0]
    return subset(images, np.flatnonzero(~held_out)), subset(images, np.flatnonzero(held_out))
