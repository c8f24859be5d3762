"""What a conversion gives: networks, and what is to be said of them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np

from byol_tf.convert.architecture import Architecture
from byol_tf.errors import ConversionError, named


@dataclass(frozen=True)
class Converted:
    """Networks from a file, with all their weights set.

    Attributes:
        architecture: of the encoder.
        padding: a word of `parts.PADDINGS`.
        encoder: from normalised images `[N, size, size, 3]` to representations `[N, d]`.
        origin: what the file was.
        heads: `projector` `[N, d]` to `[N, p]` and `predictor` `[N, p]` to `[N, p]`, where the file
            has them.
        target_encoder, target_heads: the target network's, where the file has one.
        left_out: what the file has besides.
    """

    architecture: Architecture
    padding: str
    encoder: keras.Model
    origin: str
    heads: dict[str, keras.Model] = field(default_factory=dict)
    target_encoder: keras.Model | None = None
    target_heads: dict[str, keras.Model] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


class Tensor(NamedTuple):
    """An array in a file.

    Attributes:
        shape: its sides.
        dtype: its type, as the file words it.
        read: gives the array.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


class Slot(NamedTuple):
    """Where an array goes.

    Attributes:
        name: of the tensor in the file.
        variable: that gets its values.
        axes: the tensor's axes in the variable's order; None where they are the variable's but for
            sides of 1.
    """

    name: str
    variable: keras.Variable
    axes: tuple[int, ...] | None = None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape goes in here."""
        if self.axes is None:
            return _without_ones(shape) == _without_ones(self.variable.shape)
        return len(shape) == len(self.axes) and tuple(shape[axis] for axis in self.axes) == tuple(
            self.variable.shape
        )

    def expected(self) -> list[int]:
        """The shape that fits, for people."""
        shape = list(self.variable.shape)
        return (
            shape
            if self.axes is None
            else [shape[self.axes.index(axis)] for axis in range(len(shape))]
        )


def fill(slots: Collection[Slot], tensors: Mapping[str, Tensor], what: str) -> None:
    """Sets variables from a file's tensors, once all of them are found right.

    Args:
        slots: one for each variable of the network.
        tensors: by name; every one has to be wanted by a slot.
        what: the file and its part, for messages.

    Raises:
        ConversionError: naming every kind of mistake: tensors that are missing, unknown, of another
            shape, of a type that isn't read here, or with values that aren't finite.
    """
    wanted = {slot.name for slot in slots}
    found = [slot for slot in slots if slot.name in tensors]
    lines = _list("missing", [slot.name for slot in slots if slot.name not in tensors])
    lines += _list("unknown", [name for name in tensors if name not in wanted])
    shapes = [
        (slot, list(tensors[slot.name].shape))
        for slot in found
        if not slot.fits(tensors[slot.name].shape)
    ]
    lines += _list(
        "of another shape",
        [f"{slot.name} (expected {slot.expected()}; received {shape})" for slot, shape in shapes],
    )
    types = [
        (slot.name, tensors[slot.name].dtype)
        for slot in found
        if tensors[slot.name].dtype not in _TYPES
    ]
    lines += _list(
        "of a type that isn't read here (float32, float64 and float16 are)",
        [f"{name} ({dtype})" for name, dtype in types],
    )
    if not lines:
        arrays = [(slot, _array(slot, tensors[slot.name])) for slot in slots]
        lines = _list(
            "with values that aren't finite",
            [slot.name for slot, array in arrays if not np.isfinite(array).all()],
        )
    if lines:
        raise ConversionError(
            "\n".join([f"{what}: the tensors aren't those of this network:", *lines])
        )
    for slot, array in arrays:
        slot.variable.assign(array)


_TYPES = (
    "F32",
    "F64",
    "F16",
    "f4",
    "f8",
    "f2",
    "<f4",
    "<f8",
    "<f2",
    ">f4",
    ">f8",
    ">f2",
    "=f4",
    "=f8",
    "=f2",
)
"""As safetensors and as NumPy word them."""


def _array(slot: Slot, tensor: Tensor) -> np.ndarray:
    with np.errstate(
        over="ignore"
    ):  # a float64 that float32 can't hold becomes infinite, which is said
        array = tensor.read().astype(np.float32)
    return (array if slot.axes is None else array.transpose(slot.axes)).reshape(slot.variable.shape)


def _list(kind: str, names: list[str]) -> list[str]:
    return [f"  {len(names)} {kind}: {named(names)}"] if names else []


def _without_ones(shape) -> list[int]:
    return [side for side in shape if side != 1]
