"""One process alone, and how a process's part of a batch falls on its devices. Two processes are in
`test_worker_processes.py`."""

from types import SimpleNamespace

import numpy as np
import tensorflow as tf

from byol_tf.train.multi_worker import Workers


def alone() -> Workers:
    return Workers(tf.distribute.OneDeviceStrategy("/cpu:0"))


def batches() -> tf.data.Dataset:
    """The part of one of two workers of batches of eight: 0 to 3, 8 to 11 and so on."""
    return tf.data.Dataset.range(0, tf.int64.max, 8).map(
        lambda first: first + tf.range(4, dtype=tf.int64)
    )


def test_one_alone_is_the_chief_and_waits_for_nobody():
    workers, arrays, dataset = alone(), {"w": np.ones(3, np.float32)}, batches()
    assert (workers.count, workers.index, workers.chief) == (1, 0, True)
    assert workers.gathered(7) == [7]
    assert workers.differing("config") == []
    assert workers.from_chief(arrays) is arrays
    assert workers.share(dataset, 8) is dataset
    workers.wait()


def shared(replicas: int) -> tf.data.Dataset:
    """What a strategy with so many replicas on two workers is given."""
    workers = alone()
    workers.count = 2
    workers.strategy = SimpleNamespace(
        num_replicas_in_sync=replicas, distribute_datasets_from_function=lambda make: make(None)
    )
    return workers.share(batches(), 8)


def test_each_device_gets_an_element_and_rows_keep_their_order():
    for replicas, expected in (
        (2, [[0, 1, 2, 3], [8, 9, 10, 11]]),
        (4, [[0, 1], [2, 3], [8, 9], [10, 11]]),
    ):
        dataset = shared(replicas)
        assert [
            batch.tolist() for batch in dataset.take(len(expected)).as_numpy_iterator()
        ] == expected
        assert dataset.element_spec.shape == (8 // replicas,)
        assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
