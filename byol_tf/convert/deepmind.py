"""BYOL checkpoints of deepmind-research: Haiku's parameters and moving statistics in a pickle.

A checkpoint is `{"experiment_state": _ByolExperimentState, "step": ..., "rng": ...}`
(`byol/utils/checkpointing.py`). Parameters are `{module: {"w": ...}}`, with modules such as
`res_net50/~/block_group_0/~/block_1/~/conv_2` (`byol/utils/networks.py`, Haiku's `nets/resnet.py`);
moving statistics are the `average` of `<module>/~/mean_ema` and `<module>/~/var_ema`. The axes of
kernels are in Keras' order.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from byol_tf.convert.architecture import Architecture, infer_architecture, parse_layer_name
from byol_tf.convert.assign import Converted, Slot, Tensor, assign_tensors, list_names
from byol_tf.convert.safe_pickle import StoredArray, read_arrays
from byol_tf.errors import ConversionError
from byol_tf.models.networks import build_encoder, mlp_head

_STEM = re.compile(r"(?:(?P<root>.+)/)?(?P<stem>initial_conv(?:_1)?)/w")
"""`initial_conv_1` in the published checkpoints: the code that wrote them created two convolutions
of that name, which Haiku numbered."""
_BLOCK = re.compile(r"block_group_(\d+)/block_(\d+)/")
_HEAD_MODULES = {"hidden": "linear", "bn": "batch_norm", "output": "linear_1"}
_VARIABLES = {
    "kernel": "w",
    "bias": "b",
    "gamma": "scale",
    "beta": "offset",
    "moving_mean": "mean_ema/average",
    "moving_variance": "var_ema/average",
}
_SKIPPED_MODULES = ("classifier",)


class _Networks(NamedTuple):
    """One of the two networks of a checkpoint.

    Attributes:
        architecture: the encoder's architecture.
        encoder: from normalised images to representations.
        heads: `projector` and `predictor`, as far as the checkpoint has them.
    """

    architecture: Architecture
    encoder: keras.Model
    heads: dict[str, keras.Model]


def read_deepmind(path: Path, size: int) -> Converted:
    """Reads the networks of a checkpoint.

    Args:
        path: the pickle.
        size: side in pixels of the images that the encoder takes.

    Raises:
        ConversionError: if the file can't be read or has other classes than arrays and containers,
            or its tensors aren't those of a ResNet v1 with batch normalisation and BYOL's heads.
    """
    checkpoint = read_arrays(path)
    state = _mapping(checkpoint, "experiment_state", path)
    online = _read_networks(state, "online", path, size)
    target = _read_networks(state, "target", path, size) if state.get("target_params") else None
    if target is not None and target.architecture != online.architecture:
        raise ConversionError(
            f"{path}: expected one architecture; received {online.architecture} online and "
            f"{target.architecture} as target"
        )
    step = checkpoint.get("step")
    step = step.array.tolist() if isinstance(step, StoredArray) else step
    target_heads = {}
    if target is not None and "projector" in target.heads:
        target_heads = {"projector": target.heads["projector"]}
    return Converted(
        architecture=online.architecture,
        padding="same",
        encoder=online.encoder,
        heads=online.heads,
        target_encoder=None if target is None else target.encoder,
        target_heads=target_heads,
        origin="a BYOL checkpoint in the layout of google-deepmind/deepmind-research, folder byol "
        "(Haiku parameters in a pickle)"
        + (f", saved at step {step:,}" if type(step) is int else ""),
        skipped=(
            "the classifier that was trained on the representations",
            "the optimizer's state",
            *(("the target's predictor",) if target else ()),
        ),
    )


def _read_networks(state: dict, prefix: str, path: Path, size: int) -> _Networks:
    """Reads `<prefix>_params` and `<prefix>_state`; the prefix is `online` or `target`."""
    source = f"{path}: {prefix}_params"
    tensors = dict(_flatten(_mapping(state, f"{prefix}_params", path), source))
    statistics = _flatten(_mapping(state, f"{prefix}_state", path), f"{path}: {prefix}_state")
    # `hidden` is a moving average before its bias correction; inference uses `average`.
    tensors |= {
        name: tensor
        for name, tensor in statistics
        if not name.endswith(("_ema/hidden", "_ema/counter"))
    }
    root, stem = _find_stem(tensors, f"{path}: {prefix}")
    encoder_tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith((f"{root}initial_", f"{root}block_group_"))
    }
    architecture = _infer_architecture(encoder_tensors, root, stem, f"{path}: {prefix}")
    encoder = build_encoder(architecture.name, size, architecture.width)
    slots = [
        _slot(layer, variable, root, stem)
        for layer in encoder.layers
        for variable in layer.variables
    ]
    assign_tensors(slots, encoder_tensors, source)
    others = {name: tensor for name, tensor in tensors.items() if name not in encoder_tensors}
    heads: dict[str, keras.Model] = {}
    features = encoder.output_shape[-1]
    for head in ("projector", "predictor"):
        head_tensors = {
            name: tensor for name, tensor in others.items() if name.startswith(f"{head}/")
        }
        if head_tensors:
            heads[head] = _build_head(head, head_tensors, features, source)
            features = heads[head].output_shape[-1]
    unknown = [name for name in others if name.split("/")[0] not in (*heads, *_SKIPPED_MODULES)]
    if unknown:
        raise ConversionError(f"{source}: {len(unknown)} unknown tensors: {list_names(unknown)}")
    return _Networks(architecture, encoder, heads)


def _find_stem(tensors: dict[str, Tensor], source: str) -> tuple[str, str]:
    """Returns the prefix of the ResNet's modules, and the name of its first convolution."""
    matches = [match for match in map(_STEM.fullmatch, tensors) if match]
    if len(matches) != 1:
        if matches:
            received = list_names([match[0] for match in matches])
        else:
            received = f"none among {list_names(list(tensors)) or 'no tensors'}"
        raise ConversionError(
            f'{source}: expected one ResNet, with a first convolution "<name>/initial_conv/w"; '
            f"received {received}"
        )
    (match,) = matches
    return f"{match['root']}/" if match["root"] else "", match["stem"]


def _infer_architecture(
    tensors: dict[str, Tensor], root: str, stem: str, source: str
) -> Architecture:
    blocks = [match for name in tensors if (match := _BLOCK.match(name.removeprefix(root)))]
    first = tensors.get(f"{root}block_group_0/block_0/conv_0/w")
    return infer_architecture(
        source,
        {(int(match[1]), int(match[2])) for match in blocks},
        tensors[f"{root}{stem}/w"].shape,
        first.shape[-1] if first is not None and first.shape else 0,
        f"{root}block_group_0/block_0/conv_2/w" in tensors,
    )


def _slot(layer: keras.layers.Layer, variable: keras.Variable, root: str, stem: str) -> Slot:
    """Returns the slot of a variable of the encoder."""
    if layer.name in ("stem_conv", "stem_bn"):
        module = stem if layer.name == "stem_conv" else "initial_batchnorm"
    else:
        parsed = parse_layer_name(layer.name)
        layer_type = {"conv": "conv", "bn": "batchnorm"}[parsed.type]
        module = f"block_group_{parsed.group}/block_{parsed.block}/" + (
            f"shortcut_{layer_type}" if parsed.shortcut else f"{layer_type}_{parsed.position}"
        )
    return Slot(
        f"{root}{module}/{_VARIABLES[variable.name]}",
        variable,
        tuple(range(4)) if variable.name == "kernel" else None,
    )


def _build_head(name: str, tensors: dict[str, Tensor], features: int, source: str) -> keras.Model:
    """Builds the projector or predictor with the sizes and weights of its tensors."""
    sizes = []
    for module in ("linear", "linear_1"):
        tensor = tensors.get(f"{name}/{module}/w")
        if tensor is None or len(tensor.shape) != 2:
            received = "none" if tensor is None else list(tensor.shape)
            raise ConversionError(
                f"{source}: expected {name}/{module}/w of shape [inputs, outputs]; received "
                f"{received}"
            )
        sizes.append(tensor.shape[1])
    hidden_size, output_size = sizes
    head = mlp_head(features, hidden_size, output_size, name)
    slots = [
        Slot(
            f"{name}/{_HEAD_MODULES[layer.name.removeprefix(f'{name}_')]}/"
            f"{_VARIABLES[variable.name]}",
            variable,
            (0, 1) if variable.name == "kernel" else None,
        )
        for layer in head.layers
        for variable in layer.variables
    ]
    assign_tensors(slots, tensors, source)
    return head


def _mapping(tree: Any, name: str, path: Path) -> dict:
    """Returns the mapping that a mapping has under a name."""
    value = tree.get(name) if isinstance(tree, dict) else None
    if not isinstance(value, dict):
        received = (
            list_names([str(key) for key in tree])
            if isinstance(tree, dict)
            else type(tree).__name__
        )
        raise ConversionError(
            f'{path}: expected a BYOL checkpoint, with a mapping "{name}"; received '
            f"{received or 'nothing'}"
        )
    return value


def _flatten(tree: dict, source: str) -> Iterator[tuple[str, Tensor]]:
    """Yields the name and the tensor of each parameter.

    The name is the module's without Haiku's `~`, a slash, and the parameter's.
    """
    names = set()
    for module, parameters in tree.items():
        if type(module) is not str or not isinstance(parameters, dict):
            raise ConversionError(
                f"{source}: expected modules with mappings of arrays; received {module!r:.60}"
            )
        for parameter, stored in parameters.items():
            name = "/".join([*(part for part in module.split("/") if part != "~"), str(parameter)])
            if not isinstance(stored, StoredArray):
                raise ConversionError(
                    f"{source}: expected an array as {name}; received {type(stored).__name__}"
                )
            if name in names:
                raise ConversionError(f"{source}: expected each tensor once; received {name} twice")
            names.add(name)
            array = stored.array
            yield name, Tensor(array.shape, array.dtype.str, partial(np.asarray, array))
