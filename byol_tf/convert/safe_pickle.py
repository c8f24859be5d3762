"""Reads a pickle of arrays without running what it says: plain containers, NumPy's arrays, and
JAX's as they pickle. Needs neither library.

A pickle is a program that calls whatever it names. Here a name is looked up in one table of
stand-ins, which hold data and do nothing; whatever isn't in it ends the reading with an error that
names it. Nothing is imported, and nothing of NumPy, JAX, Haiku or dill called.

The table has what these write for a tree of arrays: `numpy` (1 and 2), `jax` (`jax/_src/array.py`,
before it `device_array.py`), `haiku` (`_src/data_structures.py`: its mappings pickle as a call with
a dict) and `dill` (`_dill.py`: named tuples by their fields, arrays, types).
"""

import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from byol_tf.errors import ConversionError

_DTYPE = re.compile(r"[biuf][1248]")
_MALFORMED = (
    pickle.UnpicklingError,
    EOFError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)
"""What the unpickler and the stand-ins raise where the instructions make no sense."""


class StoredArray:
    """An array as its pickle has it, as yet bytes."""

    __slots__ = ("_bytes", "_columns_first", "dtype", "shape")

    def __new__(cls):
        array = super().__new__(cls)
        array._bytes, array._columns_first, array.dtype, array.shape = b"", False, "b1", (0,)
        return array

    def __setstate__(self, state):
        _, shape, dtype, columns_first, content = state
        _expect(
            type(shape) is tuple and all(type(side) is int and side >= 0 for side in shape),
            "an array's shape",
            shape,
        )
        _expect(isinstance(dtype, _DType), "an array's dtype", dtype)
        _expect(
            type(content) is bytes and len(content) == math.prod(shape) * dtype.size,
            "an array's bytes, as many as its shape says",
            content,
        )
        self._bytes, self._columns_first, self.dtype, self.shape = (
            content,
            bool(columns_first),
            dtype.text,
            shape,
        )

    def numpy(self) -> np.ndarray:
        """The array, read-only, of its own dtype."""
        return np.frombuffer(self._bytes, self.dtype).reshape(
            self.shape, order="F" if self._columns_first else "C"
        )


def read_arrays(path: Path) -> Any:
    """The object that a pickle holds: dicts, lists, tuples, numbers, texts and `StoredArray`s; a
    named tuple is a dict of its fields.

    Raises:
        ConversionError: if the file can't be read, is no pickle, or names a class or function that
            isn't data; the message has its name.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file).load()
    except OSError as error:
        raise ConversionError(f"{path}: can't be read: {error.strerror or error}") from error
    except _Refused as error:
        raise ConversionError(f"{path}: {error}") from None
    except _MALFORMED as error:
        raise ConversionError(
            f"{path}: expected a pickle of arrays; {error or type(error).__name__}"
        ) from None


class _Refused(Exception):
    """The pickle names something that isn't data."""


class _Reader(pickle.Unpickler):
    def find_class(self, module, name):
        found = _ADMITTED.get((module, name))
        if found is None:
            raise _Refused(
                f"expected arrays in plain containers; it holds {module}.{name}, which is neither. "
                "Nothing of it was run"
            )
        return found


def _expect(right: bool, what: str, received: Any) -> None:
    if not right:
        raise ValueError(f"expected {what}; received {received!r:.60}")


class _StandIn:
    """What a name of the table stands for. `__new__` gives the data.

    Each is a class with a `__setstate__`, since a pickle's BUILD instruction sets attributes of
    whatever has none.
    """

    __slots__ = ()

    def __setstate__(self, state):
        raise ValueError("a state for what has none")


class _DType(_StandIn):
    """`numpy.dtype(code, align, copy)`, whose byte order comes afterwards."""

    __slots__ = ("size", "text")

    def __new__(cls, code, *_):
        if type(code) is not str or not _DTYPE.fullmatch(code):
            raise _Refused(f"expected arrays of numbers; it holds one of dtype {code!r:.40}")
        dtype = super().__new__(cls)
        dtype.text, dtype.size = code, int(code[1])
        return dtype

    def __setstate__(self, state):
        order = state[1]
        _expect(order in ("<", ">", "|", "="), "a byte order", order)
        self.text = order + self.text[-2:]


class _NumpyArray(_StandIn):
    """`numpy.ndarray`, which pickles name and don't call."""

    __slots__ = ()

    def __new__(cls, *_):
        raise ValueError("an array without its bytes")


class _Reconstruct(_StandIn):
    """NumPy's `_reconstruct(ndarray, (0,), b"b")`: an empty array, whose state comes afterwards."""

    __slots__ = ()

    def __new__(cls, kind, *_):
        _expect(kind is _NumpyArray, "numpy.ndarray", kind)
        return StoredArray()


class _FromBuffer(_StandIn):
    """NumPy's `_frombuffer(bytes, dtype, shape, order)`, of protocol 5."""

    __slots__ = ()

    def __new__(cls, content, dtype, shape, order):
        _expect(isinstance(content, bytes | bytearray), "an array's bytes", content)
        array = StoredArray()
        array.__setstate__((1, shape, dtype, order == "F", bytes(content)))
        return array


class _Scalar(_StandIn):
    """NumPy's `scalar(dtype, bytes)`."""

    __slots__ = ()

    def __new__(cls, dtype, content=b""):
        array = StoredArray()
        array.__setstate__((1, (), dtype, False, content))
        return array


class _WithState(_StandIn):
    """JAX's and dill's `(function, arguments, state, ...)` of a NumPy array."""

    __slots__ = ()

    def __new__(cls, function, arguments, state, *_):
        _expect(function is _Reconstruct, "NumPy's _reconstruct", function)
        array = function(*arguments)
        array.__setstate__(state)
        return array


class _Encode(_StandIn):
    """`_codecs.encode(text, "latin1")`, as protocols 0 to 2 write bytes."""

    __slots__ = ()

    def __new__(cls, text, codec):
        _expect(type(text) is str and codec in ("latin1", "latin-1"), "bytes as Latin-1", codec)
        return text.encode("latin-1")


class _Empty(_StandIn):
    """`bytes()`: no bytes, as protocols 0 to 2 write them."""

    __slots__ = ()

    def __new__(cls):
        return b""


class _Mapping(_StandIn):
    """Haiku's mappings, and `OrderedDict`."""

    __slots__ = ()

    def __new__(cls, content=()):
        return dict(content)


class _Fields(_StandIn):
    """dill's `_create_namedtuple(name, fields, module, defaults)`: a class whose instances are
    dicts here."""

    __slots__ = ()

    def __new__(cls, name, fields, *_):
        _expect(
            isinstance(fields, tuple | list) and all(type(field) is str for field in fields),
            "a named tuple's fields",
            fields,
        )
        return _record(*fields)


class _TypeByName(_StandIn):
    """dill's `_load_type(name)`."""

    __slots__ = ()

    def __new__(cls, name):
        if name not in _DILL_TYPES:
            raise _Refused(
                f"expected arrays in plain containers; it holds dill's type {name!r:.40}. Nothing "
                "of it was run"
            )
        return _DILL_TYPES[name]


class _Module(_StandIn):
    """dill's `_import_module(name)`: the name, as nothing is imported."""

    __slots__ = ("name",)

    def __new__(cls, name, *_):
        module = super().__new__(cls)
        module.name = name
        return module


class _Attribute(_StandIn):
    """dill's `_get_attr(module, name)`, as older versions write NumPy's `_reconstruct`: another way
    to say the same name."""

    __slots__ = ()

    def __new__(cls, module, name):
        _expect(isinstance(module, _Module), "a module", module)
        return _Reader.find_class(None, module.name, name)


def _record(*fields: str) -> type:
    """The stand-in of a named tuple's class."""

    def new(cls, *values):
        _expect(len(values) == len(fields), f"{len(fields)} fields ({', '.join(fields)})", values)
        return dict(zip(fields, values, strict=True))

    return type("_Record", (_StandIn,), {"__slots__": (), "__new__": new})


_DILL_TYPES = {"bytes": _Empty, "BytesType": _Empty, "dict": _Mapping, "DictType": _Mapping}
_ADMITTED: dict[tuple[str, str], type] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _NumpyArray,
    ("_codecs", "encode"): _Encode,
    ("__builtin__", "bytes"): _Empty,
    ("builtins", "bytes"): _Empty,
    ("__builtin__", "dict"): _Mapping,
    ("builtins", "dict"): _Mapping,
    ("collections", "OrderedDict"): _Mapping,
    ("byol.byol_experiment", "_ByolExperimentState"): _record(
        "online_params", "target_params", "online_state", "target_state", "opt_state"
    ),
    ("byol.utils.optimizers", "ScaleByLarsState"): _record("mu"),
    ("byol.utils.optimizers", "AddWeightDecayState"): _record(),
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _Reconstruct
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _Scalar
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _FromBuffer
for _module, _name in (
    ("jax._src.array", "_reconstruct_array"),
    ("jax._src.device_array", "reconstruct_device_array"),
):
    _ADMITTED[_module, _name] = _WithState
for _name in ("FlatMapping", "FlatMap", "frozendict"):
    _ADMITTED["haiku._src.data_structures", _name] = _Mapping
for _module in ("dill._dill", "dill.dill"):
    _ADMITTED |= {
        (_module, "_create_namedtuple"): _Fields,
        (_module, "_create_array"): _WithState,
        (_module, "_load_type"): _TypeByName,
        (_module, "_import_module"): _Module,
        (_module, "_get_attr"): _Attribute,
    }
for _module, _name in (("optax._src.base", "EmptyState"), ("optax._src.transform", "ScaleState")):
    _ADMITTED[_module, _name] = _record()
