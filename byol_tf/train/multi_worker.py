"""What the processes of one run tell each other: one process, or one on each of several
machines."""

import contextlib
import hashlib
import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from byol_tf.devices import read_cluster
from byol_tf.errors import LOST, ConfigError, DeviceError, Interrupted, RunFolderError, RunStopped
from byol_tf.train.heartbeat import Heartbeat
from pipelines.sources import SourceError

_USAGE_ERROR = 2


class Workers:
    """The processes that train together under a strategy. One alone is its own chief, and nothing
    waits.

    Each method but `share` must be called by all of them, in the same order: it waits for the
    others.

    Args:
        strategy: of the run.

    Attributes:
        count: of processes.
        index: which of them this is, counted from 0.
        chief: whether it is the one that writes.
        heartbeat: how they know of each other's end; nobody watches before `meet`, and nobody has
            to where there is one alone.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self._summed = None
        several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        cluster = read_cluster(os.environ) if several else None
        self.count = len(cluster.addresses) if several else 1
        self.index = cluster.index if several else 0
        self.chief = self.index == 0
        self._host = cluster.addresses[0].rpartition(":")[0].strip("[]") if several else ""
        self.heartbeat = Heartbeat(self.index, self.count)

    @contextlib.contextmanager
    def meet(self) -> Iterator[None]:
        """While this is entered, the end of one process is the end of all, whatever they wait for:
        see `Heartbeat`.

        One that fails says so, and raises its own error; the others end with `LOST`, or with its
        exit code where nothing has failed: 2 for what the user has to change, 128 + n after a
        signal, when the chief has saved.
        """
        if self.count > 1:
            self._connect()
        try:
            yield
        except Interrupted as stopped:
            self.heartbeat.give_up(stopped.exit_code, f"was stopped by {stopped}")
            raise
        except RunStopped as stopped:
            self.heartbeat.give_up(stopped.exit_code, f"stopped: {stopped}")
            raise
        except (ConfigError, DeviceError, RunFolderError, SourceError) as error:
            self.heartbeat.give_up(_USAGE_ERROR, f"can't go on: {error}")
            raise
        except Exception as error:
            if isinstance(error, tf.errors.OpError) and "ollective" in str(
                error
            ):  # most likely not this process's own failure
                self.heartbeat.wait_for_verdict()
            self.heartbeat.give_up(
                LOST,
                f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.200}",
            )
            raise
        self.heartbeat.leave()

    def _connect(self) -> None:
        port, secret = (
            self.gathered(number)[0]
            for number in (self.heartbeat.listen() if self.chief else (0, 0))
        )
        if not self.chief:
            try:
                self.heartbeat.connect(self._host, port, secret)
            except OSError as error:
                # Behind a firewall that opens TF_CONFIG's ports only. TensorFlow's own connections
                # notice some ends, with its own errors.
                text = (
                    f"warning: machine {self.index + 1} can't reach {self._host}:{port} "
                    f"({error}): lost machines may go unnoticed\n"
                )
                os.write(2, text.encode())
        self.wait()
        self.heartbeat.start()

    def gathered(self, number: int) -> list[int]:
        """Each process's number (64 bits), in their order, on all of them."""
        if self.count == 1:
            return [number]
        mine = np.zeros(self.count, np.int64)
        mine[self.index] = number
        return self._sum([mine])[0].tolist()

    def differing(self, text: str) -> list[int]:
        """The processes whose text isn't the chief's."""
        numbers = self.gathered(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]))
        return [index for index, number in enumerate(numbers) if number != numbers[0]]

    def from_chief(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The chief's arrays on all processes; each gives as many, of the same names, shapes and
        dtypes."""
        if self.count == 1:
            return arrays
        # Collectives know no small integers.
        wide = [
            array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array
            for array in arrays.values()
        ]
        summed = self._sum(wide if self.chief else [np.zeros_like(array) for array in wide])
        return {
            name: array.astype(arrays[name].dtype)
            for name, array in zip(arrays, summed, strict=True)
        }

    def wait(self) -> None:
        """Returns when all processes have come here."""
        self.gathered(0)

    def share(
        self, batches: tf.data.Dataset, batch_size: int
    ) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        """What `fit` takes, of an endless dataset of this process's part of each batch.

        Keras would shard what it is given once more, by leaving out elements; what is made from a
        function it takes as it is.

        Args:
            batches: `[batch_size / count, ...]` each, in the order of the whole batch's rows.
            batch_size: of the whole batch; a multiple of the strategy's replicas.
        """
        if self.count == 1:
            return batches
        replicas = self.strategy.num_replicas_in_sync
        if replicas > self.count:  # a replica takes an element, so each gets one of its own
            batches = batches.rebatch(batch_size // replicas, drop_remainder=True)
        # Said to be endless, or the workers would ask each other at each step whether all have
        # images left.
        endless = batches.apply(
            tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )
        return self.strategy.distribute_datasets_from_function(lambda _: endless)

    def _sum(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Sums over the processes."""
        local_replicas = self.strategy.num_replicas_in_sync // self.count

        def of_replica(values):
            context = tf.distribute.get_replica_context()
            counts = (
                context.replica_id_in_sync_group % local_replicas == 0
            )  # one replica of each process
            return [
                context.all_reduce(
                    tf.distribute.ReduceOp.SUM, tf.where(counts, value, tf.zeros_like(value))
                )
                for value in values
            ]

        if self._summed is None:
            self._summed = tf.function(
                lambda values: self.strategy.run(of_replica, args=(values,)), autograph=False
            )
        summed = self._summed([tf.constant(array) for array in arrays])
        return [self.strategy.experimental_local_results(value)[0].numpy() for value in summed]
