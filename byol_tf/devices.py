"""Devices of a run: distribution strategy, cluster of workers, precision and seeds."""

import contextlib
import importlib.util
import json
import logging
import os
import random
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byol_tf import compat
from byol_tf.errors import DeviceError
from byol_tf.logs import show_status
from byol_tf.native_output import redirect_native_output

if TYPE_CHECKING:
    import tensorflow as tf

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """The worker processes of one run, one on each machine.

    Attributes:
        addresses: `host:port` of each worker, the chief's first.
        index: index of this process in `addresses`.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes the run folder."""
        return self.index == 0


def read_cluster(environment: Mapping[str, str]) -> Cluster:
    """Reads the cluster that `TF_CONFIG` describes.

    It has a list `worker`, and before it, if a scheduler sets one, a list `chief` of one address.

    Args:
        environment: such as `os.environ`.

    Raises:
        DeviceError: if `TF_CONFIG` is missing or TensorFlow doesn't accept it; the message names
            the wrong part.
    """
    text = environment.get("TF_CONFIG")
    if not text:
        raise _cluster_error(_EXAMPLE, "none" if text is None else "an empty one")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _cluster_error(_EXAMPLE, f"invalid JSON ({error})") from error
    tree = _check_object(tree, "an object")
    jobs = _check_object(tree.get("cluster"), '"cluster" as an object')
    if unknown := sorted(set(jobs) - {"chief", "worker"}):
        raise _cluster_error('only "worker" and "chief" in "cluster"', ", ".join(unknown))
    addresses = []
    for job in ("chief", "worker"):
        of_job = jobs.get(job, [])
        if not isinstance(of_job, list) or not all(map(_is_address, of_job)):
            expected = f'"cluster.{job}" as a list of "host:port", ports from 1 to 65535'
            raise _cluster_error(expected, json.dumps(of_job))
        addresses += of_job
    if not addresses or len(jobs.get("chief", [])) > 1:
        raise _cluster_error(
            'at least one "host:port" in "cluster.worker", and at most one in "cluster.chief"',
            json.dumps(jobs),
        )
    if len(set(addresses)) < len(addresses):
        raise _cluster_error('another "host:port" for each process', json.dumps(addresses))
    task = _check_object(tree.get("task"), '"task" as an object')
    return Cluster(tuple(addresses), _task_index(task, jobs))


_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", '
    '"index": 0}}, with its own index on each'
)
_ADDRESS = re.compile(r"[!-~]+:([0-9]{1,5})")


def _is_address(value: Any) -> bool:
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    return match is not None and 0 < int(match[1]) < 2**16


def _task_index(task: dict[str, Any], jobs: dict[str, Any]) -> int:
    """Returns the index of a task among the chief and the workers."""
    job, index = task.get("type"), task.get("index")
    if not isinstance(job, str) or job not in jobs:
        expected = f'"task.type" as one of {", ".join(map(json.dumps, sorted(jobs)))}'
        raise _cluster_error(expected, json.dumps(job))
    count = len(jobs[job])
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
        expected = f'"task.index" from 0 to {count - 1}, as "cluster.{job}" lists {count}'
        raise _cluster_error(expected, json.dumps(index))
    return index + (len(jobs.get("chief", [])) if job == "worker" else 0)


def _check_object(tree: Any, expected: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise _cluster_error(expected, json.dumps(tree))
    return tree


def _cluster_error(expected: str, received: str) -> DeviceError:
    return DeviceError(
        'devices.strategy: "multi_worker" reads the environment variable TF_CONFIG, the same on '
        f"each machine but for the task; expected {expected}; received {received:.200}"
    )


_NO_TENSORFLOW = (
    "TensorFlow isn't installed; an extra chooses which of its packages: "
    'pip install "byol_tf[cpu]" (or gpu, for NVIDIA GPUs, or tpu), in a checkout pip install -e '
    '".[cpu]"\n'
)


def prepare_environment() -> None:
    """Sets the environment variables that TensorFlow reads at its import, unless the user has.

    Every command that needs TensorFlow calls this first. What TensorFlow itself writes to stderr
    goes to a log from then on.

    Raises:
        SystemExit: with exit code 2, and a message with the line that installs TensorFlow, if it
            isn't installed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        sys.stderr.write(_NO_TENSORFLOW)
        raise SystemExit(2)
    # TensorFlow enables its oneDNN kernels by itself only for CPUs with AVX-512; on one with AVX2
    # they made a ResNet-18 step four times as fast (docs/results).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Without a GPU, level 2 has an error line on CUDA; every error is also raised as an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    redirect_native_output()
    show_status("starting TensorFlow")  # which takes seconds
    if os.path.expanduser("~") == "~":  # no HOME and no user, as in a container; libraries want one
        os.environ["HOME"] = tempfile.gettempdir()


def nvidia_card() -> bool:
    """Returns whether this machine has an NVIDIA GPU, whether TensorFlow sees it or not."""
    if os.path.exists("/proc/driver/nvidia/version") or os.path.exists("/dev/nvidia0"):
        return True
    for device in Path("/sys/bus/pci/devices").glob("*"):
        with contextlib.suppress(OSError):
            is_display = (device / "class").read_text().startswith("0x03")
            if is_display and (device / "vendor").read_text().strip() == "0x10de":
                return True
    return False


def build_strategy(name: str = "auto", tpu: str = "local") -> "tf.distribute.Strategy":
    """Builds the `tf.distribute` strategy that a config names.

    Args:
        name: `auto` (a TPU if the machine has one, else all GPUs, else the CPU), `cpu`, `gpu` (the
            first one), `mirrored` (all GPUs), `tpu` or `multi_worker` (the workers in `TF_CONFIG`).
            The last one has to be built before TensorFlow computes anything, and waits for the
            other workers.
        tpu: name or address of the TPU; `local` on Colab and on TPU VMs.

    Raises:
        DeviceError: if there is no such device, or `TF_CONFIG` is wrong.
        ValueError: for another name.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if name == "auto":
        name = "tpu" if _has_tpu() else "mirrored" if len(gpus) > 1 else "gpu" if gpus else "cpu"
        if name == "cpu" and nvidia_card():
            logger.warning(
                "training on the CPU: TensorFlow doesn't see this machine's NVIDIA GPU. "
                "`python -m byol_tf.doctor` looks for the reason"
            )
    if name in ("gpu", "mirrored") and not gpus:
        raise DeviceError(
            f'devices.strategy: "{name}" needs a GPU and TensorFlow sees none. Install the extra '
            '"gpu", or use "auto" or "cpu"'
        )
    match name:
        case "tpu":
            return _tpu_strategy(tpu)
        case "multi_worker":
            return _multi_worker_strategy()
        case "mirrored":
            return tf.distribute.MirroredStrategy()
        case "cpu" | "gpu":
            return tf.distribute.OneDeviceStrategy(f"/{name}:0")
    raise ValueError(
        'devices.strategy: expected "auto", "cpu", "gpu", "mirrored", "multi_worker" or "tpu"; '
        f"received {name!r}"
    )


def _tpu_strategy(tpu: str) -> "tf.distribute.Strategy":
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise DeviceError(
            f'devices.strategy: no TPU answers as "{tpu}" ({str(error).splitlines()[0]}). On '
            'Colab choose a TPU runtime, install the extra "tpu" and restart it; else use "auto"'
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _multi_worker_strategy() -> "tf.distribute.Strategy":
    import tensorflow as tf

    read_cluster(os.environ)  # for its error messages
    compat.keep_collective_keys()
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise DeviceError(
            'devices.strategy: "multi_worker" got no connection '
            f"({str(error).splitlines()[0]}). Each address in TF_CONFIG must be reached from each "
            "machine, and its port be free there"
        ) from error


def on_cpu(strategy: "tf.distribute.Strategy") -> bool:
    """Returns whether a `tf.distribute` strategy, or the default one, computes on CPUs."""
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
    """Sets Keras' dtype policy for networks that are built from now on.

    Args:
        precision: `float32`, `mixed_bfloat16` or `mixed_float16`.
    """
    import keras

    keras.mixed_precision.set_global_policy(precision)


def set_seeds(seed: int, deterministic: bool) -> None:
    """Seeds Python, NumPy, TensorFlow and Keras.

    Args:
        seed: the seed, 0 or more.
        deterministic: whether TensorFlow's operations shall give the same bits each time they run
            on this machine.
    """
    import keras
    import tensorflow as tf

    random.seed(seed)
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def _has_tpu() -> bool:
    """Returns whether this machine has a TPU.

    Read from the environment: a cluster resolver can wait for minutes where there is none.
    """
    if "TPU_NAME" in os.environ or "COLAB_TPU_ADDR" in os.environ or os.path.exists("/dev/accel0"):
        return True
    # Newer TPUs are VFIO devices, as is any device that a virtual machine was given.
    return os.path.exists("/dev/vfio/0") and importlib.util.find_spec("libtpu") is not None
