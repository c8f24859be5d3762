"""Reads pickles of arrays without running code from them.

A pickle is a program that calls the functions it names. As in `torch.load(weights_only=True)`,
`find_class` has an allow-list; as the files come from elsewhere, even these names aren't imported:
each has a stand-in here that only builds plain data, and any other name is an error. The list is
what NumPy 1 and 2, JAX (`jax/_src/array.py`, earlier `device_array.py`), Haiku
(`haiku/_src/data_structures.py`) and dill (`dill/_dill.py`) write for a tree of arrays.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from byol_tf.errors import ConversionError
from byol_tf.runs.files import check_fits_memory


def read_arrays(path: Path) -> Any:
    """Reads the object in a pickle.

    Args:
        path: the file.

    Returns:
        Dicts, lists, tuples, numbers, strings, bytes and `StoredArray`s; a named tuple is a dict of
        its fields.

    Raises:
        ConversionError: if the file can't be read, is larger than the free memory, is no pickle, or
            names a class or function that isn't on the list; the message has its name.
    """
    try:
        check_fits_memory([path])
        with path.open("rb") as file:
            return Unpickler(file).load()
    except OSError as error:
        raise ConversionError(f"{path}: can't be read: {error.strerror or error}") from error
    except Exception as error:  # a malformed pickle can raise any type
        raise ConversionError(
            f"{path}: expected a pickle of arrays in plain containers; "
            f"{error or type(error).__name__}"
        ) from None


class StoredArray:
    """An array in a pickle, filled after it is created, as pickle does with objects.

    Attributes:
        array: the NumPy array, read-only where its data are part of the pickle.
    """

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array = np.zeros(0, bool)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran_order, content = state
        if min(shape, default=0) < 0:  # NumPy would infer a side of -1
            raise ValueError(f"it holds an array of shape {shape}")
        flat = np.frombuffer(content, dtype.dtype)
        self.array = flat.reshape(shape, order="F" if fortran_order else "C")


class _StoredDtype:
    """`numpy.dtype(code, align, copy)`, whose state has the byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        if not re.fullmatch("[biuf][1248]", code):
            raise pickle.UnpicklingError(
                f"it holds an array of dtype {code!r:.40}, which isn't one of numbers"
            )
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class Unpickler(pickle._Unpickler):  # noqa: SLF001
    """Python's own unpickler without any class or function of Python's.

    The other implementation, in C, takes memory for as many objects as the file claims to have.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in of a class or function."""
        return _find(module, name)


def _find(module: str, name: str) -> type:
    full_name = f"{module}.{name}"
    if full_name not in _STAND_INS:
        raise pickle.UnpicklingError(
            f"it holds {full_name:.100}, which is neither. Nothing of it was run"
        )
    return _STAND_INS[full_name]


class _StandIn:
    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it holds a state for an object that has none")


def stand_in(function: Callable[..., Any]) -> type:
    """Returns a class whose call returns `function(*arguments)`.

    A class, as pickles create named tuples by `cls.__new__`. It has `__setstate__`, as the pickle
    instruction BUILD sets attributes of any object without that method: in place of the class, a
    function's default arguments could be changed for the next file.
    """

    def new(_cls: type, *arguments: Any) -> Any:
        return function(*arguments)

    return type("StandIn", (_StandIn,), {"__slots__": (), "__new__": new})


def _named_tuple(*fields: str) -> type:
    return stand_in(lambda *values: dict(zip(fields, values, strict=True)))


def _stored_array(shape: tuple, dtype: _StoredDtype, fortran_order: bool, content: Any) -> Any:
    array = StoredArray()
    array.__setstate__((1, shape, dtype, fortran_order, content))
    return array


def _array_type(*_: Any) -> None:
    raise ValueError("it holds an array without data")


def _encode(text: str, codec: str) -> bytes:
    """Stands for `_codecs.encode(text, "latin1")`, which is how protocols 0 to 2 write bytes."""
    if codec not in ("latin1", "latin-1"):
        raise ValueError(f"it holds bytes encoded as {codec!r:.40}")
    return text.encode("latin-1")


def _dill_type(name: str) -> type:
    """Stands for dill's `_load_type`, which may use the names of Python 2's module `types`."""
    return _find("builtins", {"BytesType": "bytes", "DictType": "dict"}.get(name, name))


_bytes = stand_in(lambda: b"")
_mapping = stand_in(lambda content=(): dict(content))
# JAX and dill write NumPy's function `_reconstruct`, its arguments and the array's state.
_array_from_state = stand_in(lambda _function, _arguments, state, *_: _stored_array(*state[1:]))
_STAND_INS = {
    "numpy.dtype": stand_in(lambda code, *_: _StoredDtype(code)),
    "numpy.ndarray": stand_in(_array_type),
    "_codecs.encode": stand_in(_encode),
    "__builtin__.bytes": _bytes,
    "builtins.bytes": _bytes,
    "__builtin__.dict": _mapping,
    "builtins.dict": _mapping,
    "collections.OrderedDict": _mapping,
    "haiku._src.data_structures.FlatMapping": _mapping,
    "haiku._src.data_structures.FlatMap": _mapping,
    "haiku._src.data_structures.frozendict": _mapping,
    "jax._src.array._reconstruct_array": _array_from_state,
    "jax._src.device_array.reconstruct_device_array": _array_from_state,
    "optax._src.base.EmptyState": _named_tuple(),
    "optax._src.transform.ScaleState": _named_tuple(),
    "byol.byol_experiment._ByolExperimentState": _named_tuple(
        "online_params", "target_params", "online_state", "target_state", "opt_state"
    ),
    "byol.utils.optimizers.ScaleByLarsState": _named_tuple("mu"),
    "byol.utils.optimizers.AddWeightDecayState": _named_tuple(),
}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS |= {
        f"{_core}.multiarray._reconstruct": stand_in(lambda *_: StoredArray()),
        f"{_core}.multiarray.scalar": stand_in(
            lambda dtype, content: _stored_array((), dtype, False, content)
        ),
        f"{_core}.numeric._frombuffer": stand_in(
            lambda content, dtype, shape, order: _stored_array(shape, dtype, order == "F", content)
        ),
    }
for _dill in ("dill._dill", "dill.dill"):
    _STAND_INS |= {
        f"{_dill}._create_namedtuple": stand_in(lambda name, fields, *_: _named_tuple(*fields)),
        f"{_dill}._create_array": _array_from_state,
        f"{_dill}._load_type": stand_in(_dill_type),
        # Older versions of dill name NumPy's `_reconstruct` by its module and attribute.
        f"{_dill}._import_module": stand_in(lambda name, *_: name),
        f"{_dill}._get_attr": stand_in(_find),
    }
