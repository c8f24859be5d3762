"""Files in the two formats of PyTorch's `torch.save`, written without PyTorch."""

import collections
import pickle
import struct
import sys
import types
import zipfile
from unittest import mock

import ml_dtypes
import numpy as np

_STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
}
BFLOAT16 = ml_dtypes.bfloat16


class _Storage:
    def __init__(self, key, array):
        self.key, self.array = key, array


def _modules():
    """Returns stand-ins for PyTorch's modules, so that pickle finds the names to write."""

    def _rebuild_tensor_v2():
        raise NotImplementedError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in _STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    return {"torch": torch, "torch._utils": utils}


class _Pickler(pickle.Pickler):
    def __init__(self, file, modules, legacy):
        super().__init__(file, protocol=2)
        self.modules, self.legacy = modules, legacy
        self.storages = []

    def reducer_override(self, value):
        if not isinstance(value, np.ndarray):
            return NotImplemented
        base = value if value.base is None else value.base
        known = [storage for storage in self.storages if storage.array is base]
        if not known:
            self.storages += (known := [_Storage(str(len(self.storages)), base)])
        offset = (value.ctypes.data - base.ctypes.data) // value.itemsize
        strides = tuple(stride // value.itemsize for stride in value.strides)
        return self.modules["torch._utils"]._rebuild_tensor_v2, (
            *(known[0], offset, value.shape, strides, False, collections.OrderedDict()),
        )

    def persistent_id(self, value):
        if not isinstance(value, _Storage):
            return None
        kind = getattr(self.modules["torch"], _STORAGES[value.array.dtype.name])
        pid = ("storage", kind, value.key, "cuda:0", value.array.size)
        return (*pid, None) if self.legacy else pid


def state_dict(tensors):
    """Returns an `OrderedDict` with an attribute, as `torch.nn.Module.state_dict` does."""
    ordered = collections.OrderedDict(tensors)
    ordered._metadata = collections.OrderedDict({"": {"version": 1}})
    return ordered


def save(path, content, legacy=False):
    """Writes nested dicts with NumPy's arrays as `torch.save` does with tensors.

    Args:
        path: the file.
        content: to write; arrays that are views share a storage.
        legacy: whether in the format before PyTorch 1.6, which is no zip.
    """
    modules = _modules()
    with mock.patch.dict(sys.modules, modules), path.open("wb") as file:
        if legacy:
            for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
                pickle.dump(value, file, protocol=2)
            pickler = _Pickler(file, modules, legacy)
            pickler.dump(content)
            pickle.dump([storage.key for storage in pickler.storages], file, protocol=2)
            for storage in pickler.storages:
                file.write(struct.pack("<q", storage.array.size) + storage.array.tobytes())
            return path
        with zipfile.ZipFile(file, "w") as archive:
            with archive.open("archive/data.pkl", "w") as member:
                pickler = _Pickler(member, modules, legacy)
                pickler.dump(content)
            archive.writestr("archive/byteorder", "little")
            for storage in pickler.storages:
                archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
    return path
