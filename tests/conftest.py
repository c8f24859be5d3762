"""Set-up that all tests share."""

import logging
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism  # it has no public name

# Two, as tests with two replicas need: each of them would else start a process for it.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

TESTS = Path(__file__).parent
LONGEST = [
    TESTS / name
    for name in (
        "byol_tf/export/test_command.py",
        "byol_tf/train/test_worker_processes.py",
        "byol_tf/models/test_from_config.py",
        "byol_tf/train/test_command.py",
        "byol_tf/models/test_ema.py",
        "byol_tf/models/test_keras_features.py",
        "byol_tf/models/test_train_step.py",
        "reliability/test_every_step.py",
        "pipelines/views/test_fused.py",
        "pipelines/sources/tfds/test_datasets.py",
        "reliability/test_poison.py",
        "byol_tf/train/test_real_photos.py",
        "pipelines/sources/shards/test_remote_blocks.py",
    )
]
"""The files that take longest: begun last, one of them would leave the other processes idle."""
assert all(path.is_file() for path in LONGEST), "a file of LONGEST has another name now"


def pytest_collection_modifyitems(items):
    """Puts the longest files first; a file's tests stay together, in their order."""
    items.sort(key=lambda item: LONGEST.index(item.path) if item.path in LONGEST else len(LONGEST))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Seeds every test, and undoes what a command left in this process.

    That is its config's precision and determinism, with which Keras compiles nothing by XLA, and
    the handlers of its log lines, behind which `caplog` would see nothing.
    """
    disable_op_determinism()
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy("float32")
    for package in ("byol_tf", "pipelines"):
        logger = logging.getLogger(package)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photos (`imagenette_stl10like/`, `cifar10/`) that BYOL_TF_TEST_DATA names;
    without it the test is skipped."""
    folder = os.environ.get("BYOL_TF_TEST_DATA")
    if not folder:
        pytest.skip("BYOL_TF_TEST_DATA names no folder of photos")
    for name in ("imagenette_stl10like", "cifar10"):
        if not (Path(folder) / name).is_dir():
            pytest.fail(f"BYOL_TF_TEST_DATA={folder}: expected a folder {name} in it")
    return Path(folder)
