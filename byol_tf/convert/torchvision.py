"""State dicts of torchvision's ResNets in safetensors, with the prefixes that other libraries put
before the names.

Kernels are `[outputs, inputs, height, width]` (`torchvision/models/resnet.py`). PyTorch pads on
both sides alike, which the encoder is built for; its batch normalisation has epsilon 1e-5 and
momentum 0.1, which is Keras' 0.9.
"""

import re
from pathlib import Path

import keras

from byol_tf.convert.architecture import recognised
from byol_tf.convert.assign import Converted, Slot, Tensor, fill
from byol_tf.errors import ConversionError, named
from byol_tf.models.networks import build_encoder

_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""A ResNet's children by their place, as `torch.nn.Sequential(*list(resnet.children())[:-1])`
numbers them, which lightly's examples do."""
_ROOTS = {"layer1.0.conv1.weight": False, "4.0.conv1.weight": True}
"""A tensor that every ResNet has -> whether its children are numbered."""
_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.")
_LAYER = re.compile(r"group(\d+)_block(\d+)_(?:(shortcut)_)?(conv|bn)(\d*)")
_LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def read_torchvision(path: Path, size: int, prefix: str | None = None) -> Converted:
    """The encoder of a state dict, for images of `size` pixels.

    Args:
        path: a safetensors file.
        size: side of the images.
        prefix: what stands before the encoder's names; None finds it, if the file holds one
            encoder.

    Raises:
        ConversionError: if the file can't be read, holds no such encoder or several, or its tensors
            aren't those of the ResNet.
    """
    tensors = _read(path)
    prefix, numbered = _root(path, list(tensors), prefix)
    inside = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    if numbered:
        inside = _by_names(inside)
    head = [name for name in inside if name.startswith("fc.")]
    of_encoder = {
        name: tensor
        for name, tensor in inside.items()
        if name not in head and not name.endswith(".num_batches_tracked")
    }
    what = f"{path}" + (f", prefix {prefix!r}" if prefix else "")
    blocks = {
        (int(match[1]) - 1, int(match[2])) for match in map(_BLOCK.match, of_encoder) if match
    }
    stem, first = (
        of_encoder[name].shape if name in of_encoder else ()
        for name in ("conv1.weight", "layer1.0.conv1.weight")
    )
    stem = tuple(stem[axis] for axis in (2, 3, 1, 0)) if len(stem) == 4 else stem
    architecture = recognised(
        what, blocks, stem, first[0] if first else 0, "layer1.0.conv3.weight" in of_encoder
    )
    encoder = build_encoder(architecture.name, size, architecture.width, padding="symmetric")
    fill(
        [_slot(layer, variable) for layer in encoder.layers for variable in layer.variables],
        of_encoder,
        what,
    )
    outside = sorted({name.split(".")[0] for name in tensors if not name.startswith(prefix)})
    return Converted(
        architecture=architecture,
        padding="symmetric",
        encoder=encoder,
        origin="a state dict with torchvision's names for a ResNet, in safetensors"
        + (f", under the prefix `{prefix}`" if prefix else "")
        + (" with numbered children" if numbered else ""),
        left_out=(
            *(("its last layer (`fc`)",) if head else ()),
            *(f"`{name}`" for name in outside),
        ),
    )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        import safetensors
    except ModuleNotFoundError:
        raise ConversionError(
            "safetensors isn't installed, which reads such a file: pip install safetensors"
        ) from None
    if not path.is_file():
        raise ConversionError(
            f"{path}: expected a safetensors file; "
            f"{'that is a folder' if path.exists() else 'there is nothing there'}"
        )
    try:
        file = safetensors.safe_open(path, framework="np")
        with file:
            names = file.keys()
            headers = {name: file.get_slice(name) for name in names}
            described = {
                name: (tuple(header.get_shape()), header.get_dtype())
                for name, header in headers.items()
            }
    except (OSError, safetensors.SafetensorError) as error:
        raise ConversionError(
            f"{path}: expected a safetensors file; {error}. From PyTorch: "
            "safetensors.torch.save_file(model.state_dict(), path)"
        ) from error
    return {
        name: Tensor(shape, dtype, _reader(path, name))
        for name, (shape, dtype) in described.items()
    }


def _reader(path: Path, name: str):
    def read():
        import safetensors

        with safetensors.safe_open(path, framework="np") as file:
            return file.get_tensor(name)

    return read


def _root(path: Path, names: list[str], wanted: str | None) -> tuple[str, bool]:
    """(What stands before the encoder's names, whether its children are numbered.)"""
    found = {
        name.removesuffix(end): numbered
        for name in names
        for end, numbered in _ROOTS.items()
        if _ends_with(name, end)
    }
    if wanted is not None:
        candidates = [prefix for prefix in found if prefix in (wanted, f"{wanted}.")]
        if not candidates:
            raise ConversionError(
                f"{path}: expected a ResNet under --prefix {wanted!r}; found {_listed(list(found))}"
            )
        return candidates[0], found[candidates[0]]
    if len(found) != 1:
        if not found:
            raise ConversionError(
                f'{path}: expected torchvision\'s names, "layer1.0.conv1.weight" or that with a '
                f"prefix; found {named(names) or 'nothing'}"
            )
        raise ConversionError(
            f"{path}: expected one ResNet; found {_listed(list(found))}. Name one with --prefix"
        )
    return next(iter(found.items()))


def _ends_with(name: str, end: str) -> bool:
    """Whether the name is `end`, with or without a prefix."""
    return name == end or name.endswith(f".{end}")


def _listed(prefixes: list[str]) -> str:
    return " and ".join(repr(prefix) for prefix in prefixes) if prefixes else "none"


def _by_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Children by name that were by number; what else there is stays as it is, for the check that
    finds it unknown."""
    renamed = {}
    for name, tensor in tensors.items():
        child, _, rest = name.partition(".")
        known = f"{_CHILDREN.get(child, child)}.{rest}"
        renamed[name if known in tensors else known] = tensor
    return renamed


def _slot(layer: keras.layers.Layer, variable: keras.Variable) -> Slot:
    """The tensor that a variable of the encoder comes from."""
    if layer.name in ("stem_conv", "stem_bn"):
        module = {"stem_conv": "conv1", "stem_bn": "bn1"}[layer.name]
    else:
        group, block, shortcut, kind, number = _LAYER.fullmatch(layer.name).groups()
        module = f"layer{group}.{int(block) - 1}." + (
            f"downsample.{int(kind == 'bn')}" if shortcut else f"{kind}{number}"
        )
    return Slot(
        f"{module}.{_LEAVES[variable.name]}",
        variable,
        (2, 3, 1, 0) if variable.name == "kernel" else None,
    )
