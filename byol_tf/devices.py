"""Devices of a run: distribution strategy, precision and seeds."""

import contextlib
import importlib.util
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from byol_tf.errors import DeviceError
from byol_tf.logs import show_status
from byol_tf.native_output import redirect_native_output
from pipelines.extras import install_line

if TYPE_CHECKING:
    import tensorflow as tf

_BFLOAT16_CPU = ("amx_bf16", "avx512_bf16")
"""Instructions, as Linux names them, of which one makes bfloat16 fast. Without them TensorFlow
computes it many times slower than float32."""
_BFLOAT16_GPU = (8, 0)
"""CUDA compute capability from which on bfloat16 is fast (A100, RTX 30)."""

logger = logging.getLogger(__name__)


def prepare_environment() -> None:
    """Sets the environment variables that TensorFlow reads at its import, unless the user has.

    Every command that needs TensorFlow calls this first. What TensorFlow itself writes to stderr
    goes to a log from then on.

    Raises:
        SystemExit: with exit code 2, and a message with the line that installs TensorFlow, if it
            isn't installed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        sys.stderr.write(
            "TensorFlow isn't installed; an extra chooses which of its packages: "
            f"{install_line('cpu')} (or gpu, for NVIDIA GPUs, or tpu)\n"
        )
        raise SystemExit(2)
    # TensorFlow enables its oneDNN kernels by itself only for CPUs with AVX-512; on one with AVX2
    # they made a ResNet-18 step four times as fast (docs/results).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Without a GPU, level 2 has an error line on CUDA; every error is also raised as an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever another program of the user's needs
    redirect_native_output()
    show_status("starting TensorFlow")  # which takes seconds
    if os.path.expanduser("~") == "~":  # no HOME and no user, as in a container; libraries want one
        os.environ["HOME"] = tempfile.gettempdir()


def check_keras_settings() -> None:
    """Checks that Keras runs on TensorFlow, with channels last and float32.

    Raises:
        DeviceError: if it doesn't.
    """
    # Asked before Keras imports the other backend, which may be missing.
    if (backend := os.environ.get("KERAS_BACKEND", "tensorflow")) != "tensorflow":
        raise DeviceError(
            f"byol_tf needs Keras' TensorFlow backend; received KERAS_BACKEND={backend}. Set it to "
            "tensorflow before Keras is imported"
        )
    import keras

    for name, received, expected in (
        ("backend", keras.config.backend(), "tensorflow"),
        ("image_data_format", keras.config.image_data_format(), "channels_last"),
        ("floatx", keras.config.floatx(), "float32"),
    ):
        if received != expected:
            home = os.environ.get("KERAS_HOME", "~/.keras")
            raise DeviceError(
                f"{name}: byol_tf needs {expected} in {home}/keras.json, or set by keras.config; "
                f"received {received}"
            )


def run_precision(precision: str, strategy: str) -> str:
    """Returns the precision that a run has on this machine.

    Args:
        precision: `devices.precision`; for `auto` it is `mixed_bfloat16` where all devices of the
            strategy compute bfloat16 in hardware, else `float32`.
        strategy: `devices.strategy`.
    """
    if precision != "auto":
        return precision
    return "mixed_bfloat16" if has_fast_bfloat16(strategy) else "float32"


def has_fast_bfloat16(strategy: str = "auto") -> bool:
    """Returns whether this machine's devices of a strategy compute bfloat16 in hardware."""
    import tensorflow as tf

    if strategy == "tpu" or (strategy == "auto" and _has_tpu()):
        return True
    gpus = [] if strategy == "cpu" else tf.config.list_physical_devices("GPU")
    if not gpus:
        return cpu_bfloat16() is not None
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return all(detail.get("compute_capability", (0, 0)) >= _BFLOAT16_GPU for detail in details)


def cpu_bfloat16() -> str | None:
    """Returns the name of the CPU's instructions for bfloat16; None without, or where unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return next((name for name in _BFLOAT16_CPU if name in flags), None)


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
            first one), `mirrored` (all GPUs) or `tpu`.
        tpu: name or address of the TPU; `local` on Colab and on TPU VMs.

    Raises:
        DeviceError: if there is no such device, or for `multi_worker`: `train.multi_worker` builds
            that strategy, once all workers have met.
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
            raise DeviceError(
                'devices.strategy: "multi_worker" needs workers that are connected: give '
                "Experiment workers=join_workers(read_cluster(os.environ), config.devices), "
                "from byol_tf.train.multi_worker and byol_tf.clusters"
            )
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


def set_seeds(seed: int, deterministic: bool) -> None:
    """Seeds Python, NumPy, TensorFlow and Keras.

    Args:
        seed: the seed, 0 or more.
        deterministic: whether TensorFlow's operations shall give the same bits each time they run
            on this machine.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)  # of Python and NumPy too
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
