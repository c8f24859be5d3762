"""Samples of labels: balanced, seeded, of every class."""

import numpy as np
import pytest

from byol_tf.errors import ProtocolError
from byol_tf.runs.splits import labelled_fraction, stratified_folds

LABELS = np.repeat(np.arange(4), [50, 30, 10, 2])
FOLDS_OF_SEED_7 = [
    [2, 9, 13, 22, 23, 24, 28, 32, 36],
    [0, 8, 10, 14, 18, 20, 21, 25, 31],
    [3, 4, 12, 17, 19, 26, 37, 38, 39],
    [1, 5, 6, 7, 15, 29, 30, 34, 35],
    [11, 16, 27, 33],
]


def test_fold_has_a_fifth_of_each_class():
    fold = stratified_folds(LABELS, seed=0)[0]
    assert np.bincount(LABELS[fold]).tolist() == [10, 6, 2, 1]
    assert np.bincount(LABELS[~fold]).tolist() == [40, 24, 8, 1]


def test_folds_are_disjoint_and_cover_divisible_classes():
    folds = stratified_folds(LABELS, seed=0)
    assert folds.shape == (5, 92)
    assert folds.sum(axis=0).max() == 1
    assert np.bincount(LABELS, weights=folds.sum(axis=0)).tolist() == [50, 30, 10, 2]
    assert [np.bincount(LABELS[fold], minlength=4).tolist() for fold in folds[-2:]] == [
        [10, 6, 2, 0]
    ] * 2


def test_indices_of_a_seed_are_those_of_the_measured_figures():
    """Every table of docs/results rests on them."""
    folds = stratified_folds(np.arange(40) % 3, seed=7)
    assert [np.flatnonzero(fold).tolist() for fold in folds] == FOLDS_OF_SEED_7


def test_class_of_one_image_is_never_held_out():
    fold = stratified_folds(np.array([0, 0, 1]), seed=0)[0]
    assert fold[:2].sum() == 1
    assert not fold[2]
    with pytest.raises(ProtocolError, match="at least two labelled images"):
        stratified_folds(np.array([0, 1, 2]), seed=0)


def test_samples_depend_on_the_seed_alone():
    assert (stratified_folds(LABELS, 1) == stratified_folds(LABELS, 1)).all()
    assert (stratified_folds(LABELS, 1) != stratified_folds(LABELS, 2)).any()
    assert (labelled_fraction(LABELS, 0.2, 1) == labelled_fraction(LABELS, 0.2, 1)).all()
    assert not np.array_equal(labelled_fraction(LABELS, 0.2, 1), labelled_fraction(LABELS, 0.2, 2))


def test_fraction_is_class_balanced():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 100))
    indices = labelled_fraction(labels, 0.05, seed=3)
    assert np.bincount(labels[indices]).tolist() == [5] * 10
    assert len(labelled_fraction(labels, 1.0, seed=3)) == 1000


def test_fraction_below_an_image_per_class_is_refused():
    labels = np.repeat(np.arange(10), 30)
    with pytest.raises(
        ProtocolError,
        match=r"--fraction: expected at least 0\.0334, .* 10 classes; received 0\.03, which is 9 of 300",
    ):
        labelled_fraction(labels, 0.03, seed=0)
    assert len(labelled_fraction(labels, 0.0334, seed=0)) == 10
