"""Fixtures of the tests of several packages."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from byol_tf.runs.folder import RunFolder


@pytest.fixture(scope="session")
def copied_run(tmp_path_factory) -> Callable[[Path], RunFolder]:
    """`copied_run(path)`: a copy of the run of `small_run.write_run`, which is written only once."""
    from tests.helpers.small_run import write_run

    written = write_run(tmp_path_factory.mktemp("small") / "run")
    return lambda path: RunFolder(shutil.copytree(written.root, path))
