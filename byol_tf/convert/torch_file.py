"""Reads the tensors of PyTorch's checkpoints without PyTorch, and without running code from them.

`torch.save` writes a pickle that refers to storages: members of a zip, or since before version 1.6
the bytes after the pickle (`torch/serialization.py`). As in `torch.load(weights_only=True)` only
functions that rebuild tensors are known. Checkpoints of training also hold options and callbacks:
objects of any other class are skipped, and nothing of that class is imported.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from byol_tf.convert.assign import Tensor
from byol_tf.convert.safe_pickle import Unpickler, stand_in
from byol_tf.errors import ConversionError
from byol_tf.runs.files import check_fits_memory

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # first object of a file without a zip
_STORAGE_TYPES = {
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""PyTorch's classes of storages -> dtypes, as safetensors spells them."""
_ARRAY_TYPES = {
    "F32": "<f4",
    "F64": "<f8",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


@dataclass(frozen=True)
class TorchFile:
    """Content of a checkpoint.

    Attributes:
        tensors: name -> tensor. The name of one inside dicts is that of their keys, joined by dots.
        skipped_classes: names of the classes whose objects were skipped, sorted.
    """

    tensors: dict[str, Tensor]
    skipped_classes: tuple[str, ...]


class _Storage(NamedTuple):
    """A storage as the pickle names it; `elements` numbers of `dtype`."""

    key: str
    dtype: str
    elements: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.elements * np.dtype(_ARRAY_TYPES[self.dtype]).itemsize


class _StoredTensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def is_torch_file(path: Path) -> bool:
    """Returns whether a file begins as those of `torch.save` do."""
    with path.open("rb") as file:
        start = file.read(16)
    return start.startswith(b"PK\x03\x04") or _MAGIC_NUMBER.to_bytes(10, "little") in start


def read_torch_file(path: Path) -> TorchFile:
    """Reads a checkpoint; its tensors are read later, each by its `read`.

    Args:
        path: the file that `torch.save` wrote.

    Raises:
        ConversionError: if the file can't be read, is larger than the free memory, or is malformed.
    """
    try:
        check_fits_memory([path])
        unpickler, storages = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        tensors = {
            name: _tensor(stored, storages) for name, stored in _named_tensors(unpickler.content)
        }
    except ConversionError:
        raise
    except OSError as error:
        raise ConversionError(f"{path}: can't be read: {error.strerror or error}") from error
    except Exception as error:  # a malformed file can raise any type
        raise ConversionError(
            f"{path}: expected a checkpoint of PyTorch; {error or type(error).__name__}"
        ) from None
    return TorchFile(tensors, tuple(sorted(unpickler.skipped)))


_Storages = dict[str, tuple[int, Callable[[], bytes]]]
"""Key of a storage -> number of its bytes in the file, and a function that reads them."""


def _read_zip(path: Path) -> tuple["_TorchUnpickler", _Storages]:
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        # A compressed member can unpack to any size; `torch.save` compresses none.
        for name, member in members.items():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"its member {name!r:.80} is compressed")
        pickles = [name for name in members if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"found {len(pickles)} members data.pkl in it")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        unpickler = _TorchUnpickler(io.BytesIO(archive.read(pickles[0])))
        unpickler.read()
    folder = f"{root}data/"
    return unpickler, {
        name.removeprefix(folder): (member.file_size, partial(_read_member, path, name))
        for name, member in members.items()
        if name.startswith(folder)
    }


def _read_member(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def _read_legacy(path: Path) -> tuple["_TorchUnpickler", _Storages]:
    with path.open("rb") as file:
        magic, _version, system, unpickler, keys = (_TorchUnpickler(file) for _ in range(5))
        if magic.read() != _MAGIC_NUMBER:
            raise ValueError("it isn't one that torch.save wrote")
        _version.read()
        if system.read()["little_endian"] is not True:
            raise ValueError("its numbers are big-endian")
        unpickler.read()
        # Each storage's number of elements, in 8 bytes, and its elements.
        storages: _Storages = {}
        for key in keys.read():
            (count,) = struct.unpack("<q", file.read(8))
            size = unpickler.storages[key]._replace(elements=count).size
            storages[key] = size, partial(_read_part, path, file.tell(), size)
            file.seek(size, io.SEEK_CUR)
        if file.tell() > path.stat().st_size:
            raise ValueError("its end is missing")
    return unpickler, storages


def _read_part(path: Path, first: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(first)
        return file.read(size)


def _tensor(stored: _StoredTensor, storages: _Storages) -> Tensor:
    """Returns a tensor after checking that it lies within the bytes that the file has for it.

    So no tensor takes more memory than the file.
    """
    storage, (size, read) = stored.storage, storages[stored.storage.key]
    last = stored.offset + sum(
        (side - 1) * stride for side, stride in zip(stored.shape, stored.strides, strict=True)
    )
    elements = math.prod(stored.shape)
    if (
        storage.size != size
        or min(stored.offset, *stored.shape, *stored.strides, 0) < 0
        or elements > storage.elements
        or (elements and last >= storage.elements)
    ):
        raise ValueError(f"it holds a tensor of shape {list(stored.shape)} that isn't all there")
    return Tensor(stored.shape, storage.dtype, partial(_read_tensor, stored, read))


def _read_tensor(stored: _StoredTensor, read: Callable[[], bytes]) -> np.ndarray:
    numbers = np.frombuffer(read(), _ARRAY_TYPES[stored.storage.dtype])[stored.offset :]
    strides = [numbers.itemsize * stride for stride in stored.strides]
    array = np.lib.stride_tricks.as_strided(numbers, stored.shape, strides, writeable=False)
    if stored.storage.dtype == "BF16":  # the first half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.copy()


def _named_tensors(content: Any) -> Iterator[tuple[str, _StoredTensor]]:
    """Yields the tensors inside nested dicts, each dict once."""
    pending, seen = [("", content)], set()
    while pending:  # not recursive, as the file decides how deep the nesting is
        name, item = pending.pop()
        if isinstance(item, _StoredTensor):
            yield name, item
        elif isinstance(item, dict) and id(item) not in seen:
            seen.add(id(item))
            pending += [
                (f"{name}.{key}" if name else f"{key}", value)
                for key, value in reversed(item.items())
            ]


class _Mapping(dict):
    """Stands for an `OrderedDict`, which a state dict is; its attributes are skipped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _Skipped:
    """Stands for an object of any other class."""

    __slots__ = ()

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "_Skipped":
        return super().__new__(cls)

    def _skip(self, *_: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _skip

    def __call__(self, *_: Any) -> "_Skipped":
        return self


class _TorchUnpickler(Unpickler):
    """Unpickler of `torch.save`; `content` is what `read` returned."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.content: Any = None
        self.storages: dict[str, _Storage] = {}
        self.skipped: set[str] = set()

    def read(self) -> Any:
        self.content = self.load()
        return self.content

    def find_class(self, module: str, name: str) -> Any:
        """Returns the dtype of a storage's class, or what stands for a function or class."""
        if module == "torch" and name in _STORAGE_TYPES:
            return _STORAGE_TYPES[name]
        full_name = f"{module}.{name}"
        if full_name not in _FUNCTIONS:
            self.skipped.add(full_name)
        return _FUNCTIONS.get(full_name, _Skipped)

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns the storage that a tensor refers to."""
        kind, dtype, key, _device, elements, *view = pid
        if kind != "storage" or dtype not in _ARRAY_TYPES or view not in ([], [None]):
            raise ValueError("it holds a storage of another kind than tensors have")
        if type(key) is not str or type(elements) is not int:
            raise ValueError("it holds a storage without a name or size")
        storage = self.storages.setdefault(key, _Storage(key, dtype, elements))
        if (storage.dtype, storage.elements) != (dtype, elements):
            raise ValueError(f"it holds a storage {key!r:.40} of two types")
        return storage


def _stored_tensor(
    storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any
) -> _StoredTensor:
    if not isinstance(storage, _Storage) or any(
        type(number) is not int for number in (offset, *shape, *strides)
    ):
        raise ValueError("it holds a tensor without a storage or shape")
    return _StoredTensor(storage, offset, tuple(shape), tuple(strides))


_FUNCTIONS = {
    "collections.OrderedDict": _Mapping,
    "torch._utils._rebuild_tensor": stand_in(_stored_tensor),
    "torch._utils._rebuild_tensor_v2": stand_in(_stored_tensor),
    "torch._utils._rebuild_parameter": stand_in(lambda tensor, *_: tensor),
}
"""Functions by which PyTorch rebuilds tensors -> what stands for them here."""
