"""CPU, GPUs, TPU or several machines by one key, and the precision that the networks compute in."""

import importlib.util
import json
import os
import random
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from byol_tf import compat
from byol_tf.errors import DeviceError


@dataclass(frozen=True)
class Cluster:
    """The processes of one run, one on each machine.

    Attributes:
        addresses: host:port of each, the chief's first.
        index: which of them this process is, counted from 0.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0


def read_cluster(environment: Mapping[str, str]) -> Cluster:
    """The cluster that `TF_CONFIG` describes: a list `worker`, and before it, where a scheduler
    sets one, `chief`.

    Args:
        environment: such as `os.environ`.

    Raises:
        DeviceError: if `TF_CONFIG` is missing or isn't what TensorFlow takes; the text says which
            part of it.
    """
    text = environment.get("TF_CONFIG")
    if not text:
        raise _error(_EXAMPLE, "none" if text is None else "an empty one")
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise _error(_EXAMPLE, f"something that is no JSON ({error})") from error
    tree = _object(tree, "an object")
    jobs = _object(tree.get("cluster"), '"cluster" as an object')
    if unknown := sorted(set(jobs) - {"chief", "worker"}):
        raise _error('"worker", and at most "chief" beside it, in "cluster"', ", ".join(unknown))
    addresses = []
    for job in ("chief", "worker"):
        listed = jobs.get(job, [])
        if not isinstance(listed, list) or not all(
            isinstance(address, str) and _ADDRESS.fullmatch(address) for address in listed
        ):
            raise _error(f'"cluster.{job}" as a list of "host:port"', json.dumps(listed))
        addresses += listed
    if not addresses or len(jobs.get("chief", [])) > 1:
        raise _error(
            'at least one "host:port" in "cluster.worker", and at most one in "cluster.chief"',
            json.dumps(jobs),
        )
    if len(set(addresses)) < len(addresses):
        raise _error('another "host:port" for each process', json.dumps(addresses))
    return Cluster(tuple(addresses), _index(_object(tree.get("task"), '"task" as an object'), jobs))


_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", '
    '"index": 0}}, with its own index on each'
)
_ADDRESS = re.compile(r"\S+:\d{1,5}")


def _index(task: dict, jobs: dict) -> int:
    """The place of a task among the chief and the workers."""
    kind, index = task.get("type"), task.get("index")
    if not isinstance(kind, str) or kind not in jobs:
        raise _error(
            f'"task.type" as one of {", ".join(map(json.dumps, sorted(jobs)))}', json.dumps(kind)
        )
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(jobs[kind]):
        raise _error(
            f'"task.index" from 0 to {len(jobs[kind]) - 1}, as "cluster.{kind}" lists '
            f"{len(jobs[kind])}",
            json.dumps(index),
        )
    return index + (len(jobs.get("chief", [])) if kind == "worker" else 0)


def _object(tree, expected: str) -> dict:
    if not isinstance(tree, dict):
        raise _error(expected, json.dumps(tree))
    return tree


def _error(expected: str, received: str) -> DeviceError:
    return DeviceError(
        'devices.strategy: "multi_worker" reads the environment variable TF_CONFIG, the same on '
        "each machine but for the task; expected "
        f"{expected}; received {received:.200}"
    )


_NO_TENSORFLOW = (
    "TensorFlow isn't installed; an extra chooses which of its packages: "
    'pip install "byol_tf[cpu]" (or gpu, for NVIDIA GPUs, or tpu), in a checkout pip install -e '
    '".[cpu]"'
)


def prepare_environment() -> None:
    """What must be set before TensorFlow is imported; a user's own settings win. Each command that
    needs TensorFlow calls this first.

    TensorFlow turns its oneDNN kernels on only for CPUs with AVX-512; on one with AVX2 they made a
    ResNet-18 step four times as fast (docs/results).

    Raises:
        SystemExit: with exit code 2, and a message with the line that installs TensorFlow, where it
            isn't installed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        print(_NO_TENSORFLOW, file=sys.stderr)
        raise SystemExit(2)
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def build_strategy(name: str = "auto", tpu: str = "local"):
    """The `tf.distribute` strategy that a config names.

    Args:
        name: `auto` (a TPU if the machine has one, else all GPUs, else the CPU), `cpu`, `gpu` (the
            first), `mirrored` (all GPUs), `tpu` or `multi_worker` (this and other machines, as
            `TF_CONFIG` says). The last has to be built before TensorFlow computes anything, and
            waits for the other machines.
        tpu: the TPU's name or address; `local` on Colab and on TPU VMs.

    Raises:
        DeviceError: if there is no such device, or `TF_CONFIG` isn't right.
        ValueError: for another name.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if name == "auto":
        name = "tpu" if _has_tpu() else "mirrored" if len(gpus) > 1 else "gpu" if gpus else "cpu"
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
        except (ValueError, tf.errors.OpError) as error:
            raise DeviceError(
                f'devices.strategy: no TPU answers as "{tpu}" ({str(error).splitlines()[0]}). On '
                "Colab choose a TPU runtime, install "
                'the extra "tpu" and restart it; else use "auto"'
            ) from error
        return tf.distribute.TPUStrategy(resolver)
    if name == "multi_worker":
        read_cluster(os.environ)
        compat.keep_collective_keys()
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise DeviceError(
                'devices.strategy: "multi_worker" got no connection '
                f"({str(error).splitlines()[0]}). Each address in TF_CONFIG must be "
                "reached from each machine, and its port be free there"
            ) from error
    if name in ("gpu", "mirrored") and not gpus:
        raise DeviceError(
            f'devices.strategy: "{name}" needs a GPU and TensorFlow sees none. Install the extra '
            '"gpu", or use "auto" or "cpu"'
        )
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name in ("cpu", "gpu"):
        return tf.distribute.OneDeviceStrategy(f"/{name}:0")
    raise ValueError(
        'devices.strategy: expected "auto", "cpu", "gpu", "mirrored", "multi_worker" or "tpu"; '
        f"received {name!r}"
    )


def on_cpu(strategy) -> bool:
    """Whether a `tf.distribute` strategy, or the default one, computes on CPUs."""
    import tensorflow as tf

    if isinstance(strategy, tf.distribute.TPUStrategy):
        return False
    known = (
        tf.distribute.OneDeviceStrategy,
        tf.distribute.MirroredStrategy,
        tf.distribute.MultiWorkerMirroredStrategy,
    )
    if type(strategy) in known:
        return all("CPU" in device.upper() for device in strategy.extended.worker_devices)
    return not tf.config.list_physical_devices("GPU")


def set_precision(precision: str) -> None:
    """Sets what networks built from now on compute in: `float32`, `mixed_bfloat16` or
    `mixed_float16`."""
    import keras

    keras.mixed_precision.set_global_policy(precision)


def set_seeds(seed: int, deterministic: bool) -> None:
    """Seeds Python, NumPy, TensorFlow and Keras; with `deterministic`, ops give the same bits each
    time they run on this machine."""
    import keras
    import tensorflow as tf

    random.seed(seed)
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def _has_tpu() -> bool:
    """Whether this machine says that it has a TPU. (Asking a resolver where there is none can wait
    for minutes.)"""
    if "TPU_NAME" in os.environ or "COLAB_TPU_ADDR" in os.environ or os.path.exists("/dev/accel0"):
        return True
    # Newer TPUs are there; so is any device that a virtual machine was given.
    return os.path.exists("/dev/vfio/0") and importlib.util.find_spec("libtpu") is not None
