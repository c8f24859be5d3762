"""Assigns a file's tensors to the variables of a network, after checking all of them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np

from byol_tf.convert.architecture import Architecture
from byol_tf.errors import ConversionError, escape

_MAX_LISTED = 8
"""Most names in a message; a network has hundreds, and when one is wrong, often all are."""


def list_names(names: Sequence[str]) -> str:
    """Returns `a, b, c and 40 more`, printable whatever the names in the file are."""
    more = len(names) - _MAX_LISTED
    return ", ".join(escape(name, 120) for name in names[:_MAX_LISTED]) + (
        f" and {more} more" if more > 0 else ""
    )


@dataclass(frozen=True)
class Converted:
    """Networks from a file, with their weights assigned.

    Attributes:
        architecture: the encoder's architecture.
        padding: the encoder's padding, one of `blocks.PADDINGS`.
        encoder: from normalised images `[N, size, size, 3]` to representations `[N, d]`.
        origin: a description of the file for people.
        heads: `projector`, `[N, d]` to `[N, p]`, and `predictor`, `[N, p]` to `[N, p]`, as far as
            the file has them.
        target_encoder: the target network's encoder, if the file has one.
        target_heads: the target network's heads, as `heads`.
        skipped: descriptions of what else the file has, which isn't converted.
        assumed: a description of what the tensors don't determine.
    """

    architecture: Architecture
    padding: str
    encoder: keras.Model
    origin: str
    heads: dict[str, keras.Model] = field(default_factory=dict)
    target_encoder: keras.Model | None = None
    target_heads: dict[str, keras.Model] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    assumed: str = ""


class Tensor(NamedTuple):
    """An array in a file.

    Attributes:
        shape: its shape.
        dtype: its dtype, as safetensors or NumPy spell it.
        read: returns the array.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


class Slot(NamedTuple):
    """A variable, and the tensor that it is assigned.

    Attributes:
        name: name of the tensor in the file.
        variable: the variable.
        axes: the tensor's axes in the order of the variable's; None if they are the same but for
            axes of length 1.
    """

    name: str
    variable: keras.Variable
    axes: tuple[int, ...] | None = None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Returns whether a tensor of this shape can be assigned to the variable."""
        if self.axes is None:
            return _squeeze(shape) == _squeeze(self.variable.shape)
        return len(shape) == len(self.axes) and tuple(shape[axis] for axis in self.axes) == tuple(
            self.variable.shape
        )

    def expected_shape(self) -> list[int]:
        """Returns the shape of a tensor that can be assigned to the variable."""
        shape = list(self.variable.shape)
        if self.axes is None:
            return shape
        return [shape[self.axes.index(axis)] for axis in range(len(shape))]


_DTYPES = {
    *("F16", "BF16", "F32", "F64"),  # safetensors
    *(f"{order}f{size}" for order in "<>=" for size in (2, 4, 8)),  # NumPy
}


def check_tensors(slots: Collection[Slot], tensors: Mapping[str, Tensor], source: str) -> None:
    """Checks that tensors can be assigned to variables; reads none.

    Args:
        slots: one for each variable of the network, which needs no values yet.
        tensors: the tensors by name; each has to be named by a slot.
        source: the file and the part of it that the tensors are from, for messages.

    Raises:
        ConversionError: with all mistakes: tensors that are missing, unknown, of another shape, or
            of an unsupported dtype.
    """
    names = {slot.name for slot in slots}
    present = [(slot, tensors[slot.name]) for slot in slots if slot.name in tensors]
    _raise_mistakes(
        source,
        [
            *_mistake("missing", [slot.name for slot in slots if slot.name not in tensors]),
            *_mistake("unknown", [name for name in tensors if name not in names]),
            *_mistake(
                "of another shape",
                [
                    f"{slot.name} (expected {slot.expected_shape()}; received {list(tensor.shape)})"
                    for slot, tensor in present
                    if not slot.accepts(tensor.shape)
                ],
            ),
            *_mistake(
                "of an unsupported dtype (float32, float64, float16 and bfloat16 are supported)",
                [
                    f"{slot.name} ({tensor.dtype})"
                    for slot, tensor in present
                    if tensor.dtype not in _DTYPES
                ],
            ),
        ],
    )


def assign_tensors(slots: Collection[Slot], tensors: Mapping[str, Tensor], source: str) -> None:
    """Assigns a file's tensors to variables; none is assigned if any tensor is wrong.

    Args:
        slots: as in `check_tensors`.
        tensors: as in `check_tensors`.
        source: as in `check_tensors`.

    Raises:
        ConversionError: as `check_tensors`, or with the tensors whose values aren't finite.
    """
    check_tensors(slots, tensors, source)
    arrays = [(slot, _read(slot, tensors[slot.name])) for slot in slots]
    infinite = [slot.name for slot, array in arrays if not np.isfinite(array).all()]
    _raise_mistakes(source, _mistake("with values that aren't finite", infinite))
    for slot, array in arrays:
        slot.variable.assign(array)


def _raise_mistakes(source: str, mistakes: list[str]) -> None:
    if mistakes:
        raise ConversionError(
            "\n".join([f"{source}: the tensors aren't those of this network:", *mistakes])
        )


def _read(slot: Slot, tensor: Tensor) -> np.ndarray:
    with np.errstate(over="ignore"):  # a float64 too large for float32 is reported as not finite
        array = tensor.read().astype(np.float32)
    return (array if slot.axes is None else array.transpose(slot.axes)).reshape(slot.variable.shape)


def _mistake(description: str, names: list[str]) -> list[str]:
    return [f"  {len(names)} {description}: {list_names(names)}"] if names else []


def _squeeze(shape: Sequence[int]) -> list[int]:
    return [side for side in shape if side != 1]
