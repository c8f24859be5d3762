"""What a proof compares, and what it says of a file that is too far off. Whole proofs are in
`test_command.py`."""

import dataclasses

import numpy as np

from byol_tf.export.formats import FORMS, INT8
from byol_tf.export.verification import Verification, same_neighbours


def test_neighbours_are_looked_for_among_a_hundred():
    """However many images there are. Row 150 is the nearest to row 0 of all, and of another
    hundred."""
    draw = np.random.default_rng(0)
    expected = draw.normal(size=(200, 8))
    expected[150] = 1.01 * expected[0]
    outputs = expected.copy()
    outputs[150] = draw.normal(size=8)
    directions = [
        rows[100:] / np.linalg.norm(rows[100:], axis=1, keepdims=True)
        for rows in (outputs, expected)
    ]
    kept = np.equal(*[(rows @ rows.T - 2.0 * np.eye(100)).argmax(axis=1) for rows in directions])
    assert 90 <= kept.sum() < 100
    assert same_neighbours(outputs, expected) == (100 + kept.sum()) / 200


def test_neighbours_that_a_file_loses_are_counted():
    (form,) = [form for form in FORMS if form.name == INT8]
    proof = Verification(
        form.name, form.what, 1.0, 1.0, 0.1, 0.99, same_neighbour=0.91, photos=12, images=300
    )
    assert proof.failures(form) == [
        "91.0% of 300 images keep their nearest neighbour; at least 95% passes"
    ]
    assert not dataclasses.replace(proof, same_neighbour=0.95).failures(form)
    assert not dataclasses.replace(proof, same_neighbour=None, images=12).failures(form)
