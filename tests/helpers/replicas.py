"""Strategies of one replica and of two, which have the two logical CPUs of `tests/conftest.py`."""

import functools

import tensorflow as tf


@functools.cache
def replicas(count: int) -> tf.distribute.Strategy:
    """Returns a strategy of one replica or two, each on a CPU.

    It is the same one at each call: the sums over the replicas of two strategies would have the
    same keys in TensorFlow's runtime, which then mixes them up.
    """
    if count == 1:
        return tf.distribute.OneDeviceStrategy("/cpu:0")
    return tf.distribute.MirroredStrategy([f"/cpu:{index}" for index in range(count)])
