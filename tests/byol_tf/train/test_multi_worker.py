"""A single worker, and how a worker's part of a batch is split over its devices.

Two workers are in `test_worker_processes.py`.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from byol_tf.errors import ConfigError, Interrupted, NotFiniteError, WorkerLost
from byol_tf.train.multi_worker import Workers


def single_worker() -> Workers:
    return Workers(tf.distribute.OneDeviceStrategy("/cpu:0"))


def batches() -> tf.data.Dataset:
    """One of two workers' part of batches of eight: 0 to 3, 8 to 11 and so on."""
    return tf.data.Dataset.range(0, tf.int64.max, 8).map(
        lambda first: first + tf.range(4, dtype=tf.int64)
    )


def test_single_worker_is_chief_and_waits_for_nobody():
    workers, arrays, dataset = single_worker(), {"w": np.ones(3, np.float32)}, batches()
    assert (workers.count, workers.index, workers.chief) == (1, 0, True)
    assert workers.gather(7) == [7]
    assert workers.find_mismatches("config") == []
    assert workers.broadcast(arrays) is arrays
    assert workers.distribute(dataset, 8) is dataset
    workers.barrier()


def distributed(replicas: int) -> tf.data.Dataset:
    """What a strategy with a number of replicas on two workers is given."""
    workers = single_worker()
    workers.count = 2
    workers.strategy = SimpleNamespace(
        num_replicas_in_sync=replicas, distribute_datasets_from_function=lambda make: make(None)
    )
    return workers.distribute(batches(), 8)


@pytest.mark.parametrize(
    ("replicas", "elements"),
    [(2, [[0, 1, 2, 3], [8, 9, 10, 11]]), (4, [[0, 1], [2, 3], [8, 9], [10, 11]])],
)
def test_each_replica_gets_one_element_in_row_order(replicas, elements):
    dataset = distributed(replicas)
    taken = dataset.take(len(elements)).as_numpy_iterator()
    assert [batch.tolist() for batch in taken] == elements
    assert dataset.element_spec.shape == (8 // replicas,)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY


class Channel:
    """Records what a worker announces to the others."""

    def __init__(self):
        self.calls = []

    def announce(self, code, reason):
        self.calls.append((code, reason))

    def wait_for_failure(self):
        self.calls.append("waits")

    def close(self):
        self.calls.append("closes")


UNHEALTHY = (
    "Graph execution error:\n\nDetected at node CollectiveReduceV2\n"
    "Collective ops is aborted by: Error reported from /job:worker/task:2: The following tasks are "
    "unhealthy (stopped sending heartbeats):\n/job:worker/replica:0/task:2\nThe tasks have crashed."
)
NO_CHIEF = (
    "Collective ops is aborted by: Deadline Exceeded\n\nRPC: /tensorflow.CoordinationService"
    "/Heartbeat"
)
CLOSED = "Collective ops is aborted by: Socket closed\nAdditional GRPC error information"


def exit_with(error: Exception | None) -> list:
    """What the worker of three that raises an error announces."""
    workers = single_worker()
    workers.count = 3
    workers.channel = Channel()
    try:
        with workers.exit_together():
            if error is not None:
                raise error
    except WorkerLost as lost:
        assert lost.__cause__ is error
    except Exception as raised:
        assert raised is error
    return workers.channel.calls


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (Interrupted(15, 1, 2, True), 143, "was stopped by SIGTERM"),
        (NotFiniteError("step 3"), 10, "stopped: step 3"),
        (ConfigError("seed: wrong"), 2, "can't continue: seed: wrong"),
        (KeyError("key\nmore"), 75, r"failed: KeyError: 'key\nmore'"),
        (tf.errors.UnavailableError(None, None, "disk"), 75, "failed: UnavailableError: disk"),
    ],
)
def test_failure_is_announced_with_its_exit_code(error, code, reason):
    assert exit_with(error) == [(code, reason)]


@pytest.mark.parametrize(
    ("error", "text", "reason"),
    [
        (tf.errors.UnavailableError, UNHEALTHY, "worker 3 of 3 was lost: it sends no heartbeat"),
        (tf.errors.DeadlineExceededError, NO_CHIEF, "worker 1 of 3 was lost: it sends no"),
        (tf.errors.UnavailableError, CLOSED, "a worker was lost: TensorFlow's connection"),
    ],
)
def test_lost_worker_is_named_by_tensorflows_error(error, text, reason, capfd):
    waits, (code, announced) = exit_with(error(None, None, text))
    assert (waits, code) == ("waits", 75)
    assert announced.startswith(f"stopped: {reason}")
    assert f"\n{reason}" in capfd.readouterr().err


def test_success_closes_the_channel():
    assert exit_with(None) == ["closes"]
