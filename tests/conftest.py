"""What all tests share."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Seeds every test, fixtures included: weights drawn by the clock would make a margin a matter
    of luck.

    And each begins in float32: a command that ran in an earlier test's process may have left its
    config's precision.
    """
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy("float32")


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
