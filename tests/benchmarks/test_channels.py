"""The benchmark of channels writes three sets of the same photos, and trains on each."""

import json

import numpy as np
import pytest
import tifffile

from benchmarks.channels import SETS, main, write_set

COUNTS = {"train": 20, "test": 20}


def test_sets_have_the_same_content(photos, tmp_path):
    for name in SETS:
        write_set(name, photos / "imagenette_stl10like", tmp_path / name, 16, COUNTS)
    files = {name: sorted((tmp_path / name).rglob("*.*")) for name in SETS}
    assert {len(paths) for paths in files.values()} == {40}
    stack, deep = (tifffile.imread(files[name][0]) for name in ("five", "sixteen"))
    assert (stack.shape, deep.shape, deep.dtype) == ((5, 16, 16), (16, 16, 3), np.uint16)
    rgb = np.moveaxis(stack[:3], 0, 2)
    np.testing.assert_array_equal(np.rint((deep - 1000.0) / 8000 * 255), rgb)


@pytest.mark.long
def test_each_set_is_trained_on(photos, tmp_path, capfd):
    arguments = ["--photos", str(photos / "imagenette_stl10like"), "--out", str(tmp_path)]
    sizes = ["--unlabelled", "40", "--labelled", "20", "--size", "32", "--epochs", "2"]
    small = ["--set", "training.batch_size=16", "--set", "encoder.width=0.25"]
    assert main([*arguments, *sizes, *small]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line[:1] == "{"]
    assert [line["set"] for line in lines] == list(SETS)
