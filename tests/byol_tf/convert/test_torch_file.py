"""Checkpoints of `torch.save`: tensors of both formats; other objects are skipped, none runs."""

import argparse
import os
import zipfile

import numpy as np
import pytest

from byol_tf.convert.torch_file import is_torch_file, read_torch_file
from byol_tf.errors import ConversionError
from tests.helpers import torch_files
from tests.reliability.hostile_files import write_zip

FLAT = np.arange(24, dtype=np.float32) / 7
ARRAYS = {
    "float32": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32),
    "double": np.arange(3.0),
    "half": np.array([0.5, -2.0], np.float16),
    "bfloat16": np.array([1.5, -0.0078125], torch_files.BFLOAT16),
    "counter": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "view": FLAT[4:16].reshape(3, 4),
    "transposed": FLAT[:6].reshape(2, 3).T,
}


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_are_read_as_they_were_saved(legacy, tmp_path):
    content = {
        "epoch": 3,
        "state_dict": torch_files.state_dict(ARRAYS),
        "optimizer": {"state": {0: {"step": 5, "exp_avg": ARRAYS["float32"]}}},
        "args": argparse.Namespace(arch="resnet50"),
        "list": [1, "two", None],
    }
    path = torch_files.save(tmp_path / "checkpoint.pth", content, legacy)
    assert is_torch_file(path)
    read = read_torch_file(path)
    assert read.skipped_classes == ("argparse.Namespace",)
    assert list(read.tensors) == [
        *(f"state_dict.{name}" for name in ARRAYS),
        "optimizer.state.0.exp_avg",
    ]
    for name, array in ARRAYS.items():
        tensor = read.tensors[f"state_dict.{name}"]
        assert tensor.shape == array.shape
        np.testing.assert_array_equal(tensor.read().astype(np.float64), array.astype(np.float64))


class _Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("call", [(os.system, "touch ran"), (eval, "1"), (getattr, "a", "upper")])
def test_calls_in_a_checkpoint_are_skipped(call, legacy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"hyper_parameters": _Call(*call), "weight": ARRAYS["float32"]}
    read = read_torch_file(torch_files.save(tmp_path / "checkpoint.pth", content, legacy))
    assert list(read.tensors) == ["weight"]
    assert len(read.skipped_classes) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth"]


def _members(tmp_path):
    path = torch_files.save(tmp_path / "good.pth", {"weight": ARRAYS["float32"]})
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m | {"archive/data/0": m["archive/data/0"][:-4]}, "that isn't all there"),
        # a stride of 0: the shape may be as large as it likes
        (
            lambda m: (
                m
                | {
                    "archive/data.pkl": m["archive/data.pkl"].replace(
                        b"K\x02K\x03", b"J\xff\xff\xff\x7fK\x03"
                    )
                }
            ),
            "that isn't all there",
        ),
        (lambda m: {k: v for k, v in m.items() if k != "archive/data/0"}, "'0'"),
        (lambda m: {k: v for k, v in m.items() if k != "archive/data.pkl"}, "0 members data.pkl"),
        (lambda m: m | {"other/data.pkl": b""}, "2 members data.pkl"),
        (lambda m: m | {"archive/byteorder": b"big"}, "big-endian"),
        (
            lambda m: m | {"archive/data.pkl": b"\x80\x02K\x01Q."},
            "expected a checkpoint of PyTorch",
        ),
        (lambda m: m | {"archive/data.pkl": b""}, "expected a checkpoint of PyTorch"),
        # an entry of the memo for which Python's unpickler in C takes 64 GB
        (
            lambda m: m | {"archive/data.pkl": b"\x80\x02]r\xff\xff\xff\xff"},
            "expected a checkpoint",
        ),
    ],
)
def test_malformed_checkpoint_is_refused(change, message, tmp_path):
    write_zip(tmp_path / "bad.pth", change(_members(tmp_path)))
    with pytest.raises(ConversionError, match=message):
        read_torch_file(tmp_path / "bad.pth")


def test_compressed_checkpoint_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _members(tmp_path).items():
            archive.writestr(name, content)
    with pytest.raises(ConversionError, match="compressed"):
        read_torch_file(tmp_path / "bad.pth")


@pytest.mark.parametrize("cut", [20, 200, -8])
def test_legacy_checkpoint_without_its_end_is_refused(cut, tmp_path):
    path = torch_files.save(tmp_path / "bad.pth", {"weight": ARRAYS["float32"]}, legacy=True)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ConversionError, match="expected a checkpoint of PyTorch"):
        read_torch_file(path)


def test_nested_and_repeated_dicts_end(tmp_path):
    inner = {"weight": ARRAYS["float32"]}
    for _ in range(60):  # 2**60 paths lead to the tensor
        inner = {"a": inner, "b": inner}
    loop = {"inner": inner}
    loop["self"] = loop
    read = read_torch_file(torch_files.save(tmp_path / "checkpoint.pth", loop))
    assert list(read.tensors) == ["inner." + 60 * "a." + "weight"]
