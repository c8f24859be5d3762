"""Small fits take one thread, large ones all there are."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from byol_tf.evaluation.threads import threads_for


def threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize(("rows", "alone"), [(1_000, True), (2**22 // 64, False)])
def test_small_fits_take_one_thread(rows, alone):
    before = threads()
    with threads_for(np.broadcast_to(np.float32(0), (rows, 64))):
        assert threads() == ([1] * len(before) if alone else before)
    assert threads() == before
    assert before
