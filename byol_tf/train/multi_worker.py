"""The workers of a run: one process, or several that train together."""

import contextlib
import hashlib
import os
import re
import signal
import threading
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from byol_tf import compat
from byol_tf.clusters import Cluster
from byol_tf.config.schema import Devices
from byol_tf.errors import (
    LOST,
    USAGE_ERROR,
    DeviceError,
    Interrupted,
    RunStopped,
    UserError,
    WorkerLost,
)
from byol_tf.train.failure_channel import FailureChannel
from byol_tf.train.rendezvous import connect_workers, report_exit
from pipelines.sources import SourceError


def join_workers(cluster: Cluster, devices: Devices) -> "Workers":
    """Waits for the other workers of a run, then builds their strategy.

    To be called before TensorFlow computes anything.

    Args:
        cluster: the workers of the run, from `clusters.read_cluster`.
        devices: section of the config, which says how long to wait.

    Raises:
        DeviceError: if this worker's port is in use, or TensorFlow's servers can't connect.
        WorkerLost: if a worker is still missing after the start's time-out.
    """
    silence = 60 * devices.worker_timeout_minutes
    if cluster.gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = cluster.gpus
    connections = connect_workers(cluster, 60 * devices.start_timeout_minutes, silence)
    channel = FailureChannel(cluster.index, len(cluster.addresses))
    channel.start(connections)
    compat.set_heartbeat_timeout(silence)
    # All workers are there, so TensorFlow connects them in a moment. If one ends in it, the channel
    # notices. Only `abort` ends a process in which TensorFlow waits; Python's own end would wait.
    reason = f"has waited {silence:.0f} s for TensorFlow to connect all workers"
    give_up = threading.Timer(silence, channel.abort, (LOST, reason))
    give_up.start()
    try:
        with compat.waiting_without_interpreter_lock():
            strategy = _build_strategy(cluster)
    except DeviceError as error:
        channel.wait_for_failure()  # of a worker that has ended, which is the better reason
        channel.announce(USAGE_ERROR, f"can't continue: {error}")
        raise
    except KeyboardInterrupt:
        channel.abort(128 + signal.SIGINT, "was stopped by SIGINT")
        raise
    finally:
        give_up.cancel()
    return Workers(strategy, cluster, channel)


def _build_strategy(cluster: Cluster) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Builds the strategy, which waits for the other workers to do so.

    Raises:
        DeviceError: if TensorFlow's servers can't connect.
    """
    compat.keep_collective_keys()
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except tf.errors.OpError as error:
        raise DeviceError(
            'devices.strategy: "multi_worker" got no connection '
            f"({str(error).splitlines()[0]}). Each address from {cluster.origin} must be reached "
            "from each machine, and its port be free there"
        ) from error


class Workers:
    """The workers that train together under a strategy; one alone is its own chief.

    All of them must call each method but `distribute` in the same order: it waits for the others.

    Args:
        strategy: the strategy of the run.
        cluster: the workers; None for one alone.
        channel: their connections; None for a channel without connections.

    Attributes:
        count: number of workers.
        index: index of this one, from 0.
        chief: whether this one is the chief, which writes the run folder.
        channel: how they report failures to each other.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        cluster: Cluster | None = None,
        channel: FailureChannel | None = None,
    ) -> None:
        self.strategy = strategy
        self.count = 1 if cluster is None else len(cluster.addresses)
        self.index = 0 if cluster is None else cluster.index
        self.chief = self.index == 0
        self.channel = FailureChannel(self.index, self.count) if channel is None else channel
        # Compiled once: a new function in each call would be traced again.
        self._sum_over_replicas = tf.function(self._sum_on_replicas, autograph=False)

    @contextlib.contextmanager
    def exit_together(self) -> Iterator[None]:
        """Makes all workers exit once one exits inside this context, whatever they wait for.

        A worker that fails reports the reason and raises its own error. The others exit with
        `LOST`, or with its exit code if nothing is broken: 2 for what the user has to change, and
        128 + n after signal n, once the chief has saved.

        Raises:
            WorkerLost: in place of TensorFlow's error where a collective failed because of
                another worker.
        """
        try:
            yield
        except Interrupted as stopped:
            self.channel.announce(stopped.exit_code, f"was stopped by {stopped}")
            raise
        except RunStopped as stopped:
            self.channel.announce(stopped.exit_code, f"stopped: {stopped}")
            raise
        except (UserError, SourceError) as error:
            self.channel.announce(USAGE_ERROR, f"can't continue: {error}")
            raise
        except Exception as error:
            reason = self._lost_worker(error)
            if reason is not None:
                self.channel.wait_for_failure()  # it knows more, and exits if it has heard of it
                report_exit(LOST, reason)
                self.channel.announce(LOST, f"stopped: {reason}")
                raise WorkerLost(reason) from error
            first_line = str(error).strip().partition("\n")[0]
            self.channel.announce(LOST, f"failed: {type(error).__name__}: {first_line:.200}")
            raise
        self.channel.close()

    def gather(self, number: int) -> list[int]:
        """Returns every worker's 64-bit number, in the order of the workers, on all of them."""
        if self.count == 1:
            return [number]
        numbers = np.zeros(self.count, np.int64)
        numbers[self.index] = number
        return self._sum([numbers])[0].tolist()

    def find_mismatches(self, text: str) -> list[int]:
        """Returns the indices of the workers whose text differs from the chief's."""
        hashes = self.gather(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]))
        return [index for index, number in enumerate(hashes) if number != hashes[0]]

    def broadcast(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the chief's arrays on all workers.

        Args:
            arrays: this worker's; names, shapes and dtypes are the same on all workers.
        """
        if self.count == 1:
            return arrays
        # Collectives take no small integers.
        summable = [
            array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array
            for array in arrays.values()
        ]
        sums = self._sum(summable if self.chief else [np.zeros_like(array) for array in summable])
        return {
            name: total.astype(arrays[name].dtype) for name, total in zip(arrays, sums, strict=True)
        }

    def barrier(self) -> None:
        """Returns once all workers have called it."""
        self.gather(0)

    def distribute(
        self, batches: tf.data.Dataset, batch_size: int
    ) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        """Returns an endless dataset of this worker's part of each batch, as `fit` takes it.

        Keras would shard a plain dataset once more, by skipping elements; one that comes from a
        function it takes as it is.

        Args:
            batches: elements of `[batch_size / count, ...]`, in the order of the global batch.
            batch_size: images of the global batch, a multiple of the strategy's replicas.
        """
        if self.count == 1:
            return batches
        replicas = self.strategy.num_replicas_in_sync
        if replicas > self.count:  # each replica takes one element
            batches = batches.rebatch(batch_size // replicas, drop_remainder=True)
        # Declared endless, or the workers would ask each other at each step whether all have
        # images left.
        endless = batches.apply(
            tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )
        return self.strategy.distribute_datasets_from_function(lambda _: endless)

    def _sum(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the sums of the workers' arrays."""
        sums = self._sum_over_replicas([tf.constant(array) for array in arrays])
        return [self.strategy.experimental_local_results(value)[0].numpy() for value in sums]

    def _sum_on_replicas(self, values: list[tf.Tensor]) -> list[tf.Tensor]:
        local_replicas = self.strategy.num_replicas_in_sync // self.count

        def sum_on_replica(values: list[tf.Tensor]) -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            is_first = context.replica_id_in_sync_group % local_replicas == 0  # of its worker
            return [
                context.all_reduce(
                    tf.distribute.ReduceOp.SUM, tf.where(is_first, value, tf.zeros_like(value))
                )
                for value in values
            ]

        return self.strategy.run(sum_on_replica, args=(values,))

    def _lost_worker(self, error: Exception) -> str | None:
        """Returns a sentence on the worker that TensorFlow lost, if an error is about that."""
        text = str(error)
        lost = (tf.errors.UnavailableError, tf.errors.DeadlineExceededError)
        if not isinstance(error, lost) or "ollective" not in text:
            return None
        index = None
        if "CoordinationService/Heartbeat" in text:  # the chief answers every worker's
            index = 0
        elif task := re.search(r"unhealthy.*?/job:worker/replica:0/task:(\d+)", text, re.DOTALL):
            index = int(task[1])
        if index is None:
            return "a worker was lost: TensorFlow's connection to it failed"
        return f"worker {index + 1} of {self.count} was lost: it sends no heartbeat to TensorFlow"
