"""Draws of labels: balanced, seeded, no class left out."""

import numpy as np
import pytest

from byol_tf.errors import ProtocolError
from byol_tf.evaluate.splits import held_out, labelled_fraction

LABELS = np.repeat(np.arange(4), [50, 30, 10, 2])


def test_held_out_takes_a_share_of_each_class_and_never_all():
    held = held_out(LABELS, seed=0)
    assert np.bincount(LABELS[held]).tolist() == [10, 6, 2, 1]
    assert np.bincount(LABELS[~held]).tolist() == [40, 24, 8, 1]


def test_turns_share_no_image_and_five_take_all_that_can_be_divided():
    parts = np.stack([held_out(LABELS, seed=0, turn=turn) for turn in range(5)])
    assert parts.sum(axis=0).max() == 1
    assert np.bincount(LABELS, weights=parts.sum(axis=0)).tolist() == [50, 30, 10, 2]
    assert [np.bincount(LABELS[part], minlength=4).tolist() for part in parts[-2:]] == [
        [10, 6, 2, 0]
    ] * 2
    assert (parts[0] == held_out(LABELS, seed=0)).all()


def test_a_class_of_one_image_stays():
    held = held_out(np.array([0, 0, 1]), seed=0)
    assert held[:2].sum() == 1
    assert not held[2]
    with pytest.raises(ProtocolError, match="two labelled images or more"):
        held_out(np.array([0, 1, 2]), seed=0)


def test_draws_depend_on_the_seed_alone():
    assert (held_out(LABELS, 1) == held_out(LABELS, 1)).all()
    assert (held_out(LABELS, 1) != held_out(LABELS, 2)).any()
    assert (labelled_fraction(LABELS, 0.2, 1) == labelled_fraction(LABELS, 0.2, 1)).all()
    assert not np.array_equal(labelled_fraction(LABELS, 0.2, 1), labelled_fraction(LABELS, 0.2, 2))


def test_a_fraction_is_class_balanced():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 100))
    chosen = labelled_fraction(labels, 0.05, seed=3)
    assert np.bincount(labels[chosen]).tolist() == [5] * 10
    assert len(labelled_fraction(labels, 1.0, seed=3)) == 1000


def test_a_fraction_that_leaves_a_class_without_images_is_refused():
    labels = np.repeat(np.arange(10), 30)
    with pytest.raises(
        ProtocolError,
        match=r"--fraction: expected at least 0\.0334, .* 10 classes; received 0\.03, which is 9 of 300",
    ):
        labelled_fraction(labels, 0.03, seed=0)
    assert len(labelled_fraction(labels, 0.0334, seed=0)) == 10
