"""TensorFlow's tutorial on several workers, which plain Keras 3 fails at: keras-team/keras 20585."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers.waiting import HANG
from tests.helpers.workers import ROOT, run_workers


@pytest.mark.long
def test_tutorials_model_on_two_workers_learns_what_keras_learns_on_one(tmp_path):
    line = [sys.executable, "-m", "tests.helpers.tutorial_worker"]
    paths = [tmp_path / f"{name}.npz" for name in ("chief", "other", "alone")]
    for process in run_workers(*([*line, str(path)] for path in paths[:2])):
        assert process.returncode == 0, process.stderr
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([*line, str(paths[2])], cwd=ROOT, env=environment, timeout=HANG, check=True)
    chief, other, alone = ([*np.load(path).values()] for path in paths)
    assert [array.shape for array in alone][:2] == [(3, 3, 1, 32), (32,)]
    for ours, same, expected in zip(chief, other, alone, strict=True):
        np.testing.assert_array_equal(ours, same)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
