"""CPU, GPUs, TPU or several machines by one key, and the precision that the networks compute in."""

import importlib.util
import os
import random
import sys

from byol_tf.cluster import DeviceError, read_cluster

_NO_TENSORFLOW = (
    "TensorFlow isn't installed; an extra chooses which of its packages: "
    'pip install "byol_tf[cpu]" (or gpu, for NVIDIA GPUs, or tpu), in a checkout pip install -e ".[cpu]"'
)


def prepare_environment() -> None:
    """What must be set before TensorFlow is imported; a user's own settings win. Each command that needs TensorFlow calls this first.

    TensorFlow turns its oneDNN kernels on only for CPUs with AVX-512; on one with AVX2 they made a ResNet-18 step four times
    as fast (docs/results).

    Raises:
        SystemExit: with exit code 2, and a message with the line that installs TensorFlow, where it isn't installed.
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
        name: `auto` (a TPU if the machine has one, else all GPUs, else the CPU), `cpu`, `gpu` (the first), `mirrored` (all GPUs), `tpu` or
            `multi_worker` (this and other machines, as `TF_CONFIG` says). The last has to be built before TensorFlow computes anything, and
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
                f'devices.strategy: no TPU answers as "{tpu}" ({str(error).splitlines()[0]}). On Colab choose a TPU runtime, install '
                'the extra "tpu" and restart it; else use "auto"'
            ) from error
        return tf.distribute.TPUStrategy(resolver)
    if name == "multi_worker":
        read_cluster(os.environ)
        _keep_collective_keys()
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise DeviceError(
                f'devices.strategy: "multi_worker" got no connection ({str(error).splitlines()[0]}). Each address in TF_CONFIG must be '
                "reached from each machine, and its port be free there"
            ) from error
    if name in ("gpu", "mirrored") and not gpus:
        raise DeviceError(
            f'devices.strategy: "{name}" needs a GPU and TensorFlow sees none. Install the extra "gpu", or use "auto" or "cpu"'
        )
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name in ("cpu", "gpu"):
        return tf.distribute.OneDeviceStrategy(f"/{name}:0")
    raise ValueError(f'devices.strategy: expected "auto", "cpu", "gpu", "mirrored", "multi_worker" or "tpu"; received {name!r}')


def _keep_collective_keys() -> None:
    """Has the collectives of a compiled function keep their keys from call to call; to be called before there is a strategy.

    By default each call gets new ones, so that workers may trace a function at different times, which ours don't. TensorFlow forgets no key
    that was used: the soak's tiny network grew by 168 MB in 1,000 steps, see https://github.com/tensorflow/tensorflow/issues/42616.
    """
    from tensorflow.python.distribute import cross_device_utils

    cross_device_utils.CollectiveReplicaLauncher._prefer_unique_instance_key = False


def on_cpu(strategy) -> bool:
    """Whether a `tf.distribute` strategy, or the default one, computes on CPUs."""
    import tensorflow as tf

    if isinstance(strategy, tf.distribute.TPUStrategy):
        return False
    known = (tf.distribute.OneDeviceStrategy, tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    if type(strategy) in known:
        return all("CPU" in device.upper() for device in strategy.extended.worker_devices)
    return not tf.config.list_physical_devices("GPU")


def set_precision(precision: str) -> None:
    """Sets what networks built from now on compute in: `float32`, `mixed_bfloat16` or `mixed_float16`."""
    import keras

    keras.mixed_precision.set_global_policy(precision)


def set_seeds(seed: int, deterministic: bool) -> None:
    """Seeds Python, NumPy, TensorFlow and Keras; with `deterministic`, ops give the same bits each time they run on this machine."""
    import keras
    import tensorflow as tf

    random.seed(seed)
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def _has_tpu() -> bool:
    """Whether this machine says that it has a TPU. (Asking a resolver where there is none can wait for minutes.)"""
    if "TPU_NAME" in os.environ or "COLAB_TPU_ADDR" in os.environ or os.path.exists("/dev/accel0"):
        return True
    # Newer TPUs are there; so is any device that a virtual machine was given.
    return os.path.exists("/dev/vfio/0") and importlib.util.find_spec("libtpu") is not None
