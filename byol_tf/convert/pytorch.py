"""ResNets in PyTorch's checkpoints: torchvision's names, under the prefixes of other libraries.

timm, lightly, solo-learn, MoCo, SimSiam, SwAV and DINO use torchvision's names too. Kernels are
`[outputs, inputs, height, width]` (`torchvision/models/resnet.py`). PyTorch pads both sides alike,
so the encoder is built with symmetric padding; its batch normalisation has epsilon 1e-5 and
momentum 0.1, which is 0.9 in Keras.
"""

import re
from functools import partial
from pathlib import Path

import keras
import numpy as np

from byol_tf.compat import build_without_values
from byol_tf.convert.architecture import infer_architecture, parse_layer_name
from byol_tf.convert.assign import (
    Converted,
    Slot,
    Tensor,
    assign_tensors,
    check_tensors,
    list_names,
)
from byol_tf.convert.torch_file import is_torch_file, read_torch_file
from byol_tf.errors import ConversionError, code_span, escape
from byol_tf.models.networks import build_encoder

_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Index -> name of a ResNet's children in `torch.nn.Sequential(*list(resnet.children())[:-1])`,
which lightly's examples use."""
_MARKERS = {"layer1.0.conv1.weight": False, "4.0.conv1.weight": True}
"""A tensor that every ResNet has -> whether the children are numbered."""
_SECOND_ENCODER = re.compile(r"momentum|encoder_k|target|ema|student")
"""In the prefix of an encoder that isn't the usual one of its file: MoCo's, solo-learn's and
lightly's moving averages (their evaluations take the other), and DINO's student (`eval_knn.py`
takes the teacher)."""
_HEADS = ("fc", "projection_head", "prototypes", "projector", "predictor", "head", "classifier")
"""Modules behind the pooling that some projects keep beside the ResNet's layers: torchvision's
classifier, SwAV's heads (`facebookresearch/swav`, `src/resnet50.py`), and other usual names."""
_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.")
TORCH_VARIABLES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""Keras's name of a variable -> PyTorch's."""


def read_pytorch(path: Path, size: int, prefix: str | None = None) -> Converted:
    """Reads the encoder of a checkpoint.

    Args:
        path: a safetensors file, or one of `torch.save`.
        size: side in pixels of the images that the encoder takes.
        prefix: the encoder's names begin with it, or have it between dots; None takes the usual
            encoder of the file.

    Raises:
        ConversionError: if the file can't be read, has no such encoder or several, or its tensors
            aren't those of the ResNet.
    """
    all_tensors, form = _read(path)
    prefix, numbered, others = find_encoder(path, list(all_tensors), prefix)
    tensors = {
        name.removeprefix(prefix): tensor
        for name, tensor in all_tensors.items()
        if name.startswith(prefix)
    }
    if numbered:
        tensors = _rename_children(tensors)
    encoder_tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if name.split(".")[0] not in _HEADS and not name.endswith(".num_batches_tracked")
    }
    source = f"{path}, prefix {prefix!r}" if prefix else f"{path}"
    blocks = [match for match in map(_BLOCK.match, encoder_tensors) if match]
    stem, first = (
        encoder_tensors[name].shape if name in encoder_tensors else ()
        for name in ("conv1.weight", "layer1.0.conv1.weight")
    )
    architecture = infer_architecture(
        source,
        {(int(match[1]) - 1, int(match[2])) for match in blocks},
        tuple(stem[axis] for axis in (2, 3, 1, 0)) if len(stem) == 4 else stem,
        first[0] if first else 0,
        "layer1.0.conv3.weight" in encoder_tensors,
    )

    def build() -> keras.Model:
        return build_encoder(architecture.name, size, architecture.width, padding="symmetric")

    # Before the encoder takes memory: the first two tensors alone decide its width.
    check_tensors(_slots(build_without_values(build)), encoder_tensors, source)
    encoder = build()
    assign_tensors(_slots(encoder), encoder_tensors, source)
    heads = {name.split(".")[0] for name in tensors} & set(_HEADS)
    counters = sum(name.endswith(".num_batches_tracked") for name in tensors)
    modules = sorted(
        {_module(name, prefix) for name in all_tensors if not name.startswith(prefix)}
        | {f"{prefix}{head}" for head in heads - {"fc"}}
    )
    return Converted(
        architecture=architecture,
        padding="symmetric",
        encoder=encoder,
        origin=f"a state dict with torchvision's names for a ResNet, in {form}"
        + (f", under the prefix {code_span(prefix)}" if prefix else "")
        + (" with numbered children" if numbered else "")
        + (f"; --prefix selects {' or '.join(map(code_span, others))} instead" if others else ""),
        assumed="torchvision's strides (in the 3x3 convolution of a block, where detectron2 and "
        "Caffe have them in the first 1x1; 2 in the stem, with pooling) and no dilation, which "
        "tensors don't determine",
        skipped=(
            *(("its last layer (`fc`)",) if "fc" in heads else ()),
            *((f"{counters} counters (`num_batches_tracked`)",) if counters else ()),
            *map(code_span, modules),
        ),
    )


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Returns the tensors of a file, and the file's format."""
    if is_torch_file(path):
        content = read_torch_file(path)
        if not content.tensors:
            classes = list_names(content.skipped_classes) or "no objects of a class"
            raise ConversionError(
                f"{path}: expected tensors in dicts, such as model.state_dict(); found none "
                f"(skipped: {classes})"
            )
        return content.tensors, "PyTorch's own format"
    return _read_safetensors(path), "safetensors"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        import safetensors
    except ModuleNotFoundError:
        raise ConversionError(
            "safetensors isn't installed, which reads such a file: pip install safetensors"
        ) from None
    try:
        with safetensors.safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            # Arrays are read later: NumPy has no dtype for some of safetensors'.
            return {
                name: Tensor(tuple(each.get_shape()), each.get_dtype(), partial(_load, path, name))
                for name, each in slices.items()
            }
    except (OSError, safetensors.SafetensorError) as error:
        raise ConversionError(
            f"{path}: expected a file of torch.save or a safetensors file; {error}"
        ) from error


def _load(path: Path, name: str) -> np.ndarray:
    import safetensors

    with safetensors.safe_open(path, framework="np") as file:
        return file.get_tensor(name)


def find_encoder(
    path: Path, names: list[str], requested: str | None
) -> tuple[str, bool, list[str]]:
    """Finds the encoder by the name of a tensor that every ResNet has.

    Args:
        path: the file, for messages.
        names: of its tensors.
        requested: as `prefix` of `read_pytorch`.

    Returns:
        The prefix of its names, whether its children are numbered, and other encoders' prefixes.

    Raises:
        ConversionError: if there is none, or several and none is the usual one.
    """
    prefixes = {
        name.removesuffix(marker): numbered
        for name in names
        for marker, numbered in _MARKERS.items()
        if name == marker or name.endswith(f".{marker}")
    }
    listed = " and ".join(repr(escape(prefix, 120)) for prefix in prefixes) or "none"
    if not prefixes:
        raise ConversionError(
            f'{path}: expected torchvision\'s names of a ResNet, "layer1.0.conv1.weight" or that '
            f"with a prefix; found {list_names(names) or 'nothing'}"
        )
    if requested is None:
        usual = [prefix for prefix in prefixes if not _SECOND_ENCODER.search(prefix)]
        candidates = usual if len(prefixes) > 1 else list(prefixes)
    else:
        wanted = requested.strip(".")
        candidates = [prefix for prefix in prefixes if prefix in (wanted, f"{wanted}.")] or [
            prefix for prefix in prefixes if wanted and f".{wanted}." in f".{prefix}"
        ]
        if not candidates:
            raise ConversionError(
                f"{path}: expected a ResNet under --prefix {requested!r}; found {listed}"
            )
    if len(candidates) != 1:
        raise ConversionError(
            f"{path}: expected one ResNet; found {listed}. Name one with --prefix"
        )
    (chosen,) = candidates
    return chosen, prefixes[chosen], [prefix for prefix in prefixes if prefix != chosen]


def _module(name: str, prefix: str) -> str:
    """Returns the module of a tensor outside of the encoder.

    It is the first part of the name in which it differs from the encoder's prefix, with what comes
    before: of MoCo's `module.queue`, where the encoder is `module.encoder_q.`, all of it.
    """
    parts, own = name.split("."), prefix.split(".")
    shared = 0
    while shared < len(parts) - 1 and parts[shared] == own[shared]:
        shared += 1
    return ".".join(parts[: shared + 1])


def _rename_children(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors with the names of children in place of their indices.

    Other names stay, so that `assign_tensors` reports them as unknown.
    """
    renamed = {}
    for name, tensor in tensors.items():
        child, _, rest = name.partition(".")
        new_name = f"{_CHILDREN.get(child, child)}.{rest}"
        renamed[name if new_name in tensors else new_name] = tensor
    return renamed


def _slots(encoder: keras.Model) -> list[Slot]:
    """Returns the slots of the encoder's variables."""
    return [_slot(layer, variable) for layer in encoder.layers for variable in layer.variables]


def _slot(layer: keras.layers.Layer, variable: keras.Variable) -> Slot:
    """Returns the slot of a variable of the encoder."""
    if layer.name in ("stem_conv", "stem_bn"):
        module = {"stem_conv": "conv1", "stem_bn": "bn1"}[layer.name]
    else:
        parsed = parse_layer_name(layer.name)
        module = f"layer{parsed.group + 1}.{parsed.block}." + (
            f"downsample.{int(parsed.type == 'bn')}"
            if parsed.shortcut
            else f"{parsed.type}{parsed.position + 1}"
        )
    return Slot(
        f"{module}.{TORCH_VARIABLES[variable.name]}",
        variable,
        (2, 3, 1, 0) if variable.name == "kernel" else None,
    )
