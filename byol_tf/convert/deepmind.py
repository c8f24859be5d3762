"""BYOL checkpoints of deepmind-research: Haiku's parameters and moving statistics in a pickle.

A checkpoint is `{"experiment_state": _ByolExperimentState, "step": ..., "rng": ...}`
(`byol/utils/checkpointing.py`). Parameters are `{module: {"w": ...}}`, with modules such as
`res_net50/~/block_group_0/~/block_1/~/conv_2` (`byol/utils/networks.py`, Haiku's `nets/resnet.py`);
moving statistics are the `average` of `<module>/~/mean_ema` and `<module>/~/var_ema`. Kernels lie
as Keras' do.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras

from byol_tf.convert.architecture import Architecture, recognised
from byol_tf.convert.assign import Converted, Slot, Tensor, fill
from byol_tf.convert.safe_pickle import StoredArray, read_arrays
from byol_tf.errors import ConversionError, named
from byol_tf.models.networks import build_encoder, mlp_head

_STEM = re.compile(r"(?:(?P<root>.+)/)?(?P<stem>initial_conv(?:_1)?)/w")
"""The published checkpoints were made by code in which the first convolution had a namesake, so
Haiku numbered it."""
_BLOCK = re.compile(r"block_group_(\d+)/block_(\d+)/")
_LAYER = re.compile(r"group(\d+)_block(\d+)_(?:(shortcut)_)?(conv|bn)(\d*)")
_HEAD_LAYERS = {"hidden": "linear", "bn": "batch_norm", "output": "linear_1"}
_LEAVES = {
    "kernel": "w",
    "bias": "b",
    "gamma": "scale",
    "beta": "offset",
    "moving_mean": "mean_ema/average",
    "moving_variance": "var_ema/average",
}
_LEFT_OUT = ("classifier",)


class _Networks(NamedTuple):
    """One of the two networks of a checkpoint.

    Attributes:
        architecture: of its encoder.
        encoder: from normalised images to representations.
        heads: those of projector and predictor that it has.
    """

    architecture: Architecture
    encoder: keras.Model
    heads: dict[str, keras.Model]


def read_deepmind(path: Path, size: int) -> Converted:
    """The networks of a checkpoint, for images of `size` pixels.

    Raises:
        ConversionError: if the file can't be read or holds another class than arrays and
            containers, or its tensors aren't those of a ResNet v1 with batch normalisation and
            BYOL's heads.
    """
    checkpoint = read_arrays(path)
    state = _part(checkpoint, "experiment_state", path)
    online = _networks(state, "online", path, size)
    target = _networks(state, "target", path, size) if state.get("target_params") else None
    if target is not None and target.architecture != online.architecture:
        raise ConversionError(
            f"{path}: expected one architecture; received {online.architecture} online and "
            f"{target.architecture} as target"
        )
    step = checkpoint.get("step")
    step = step.numpy().tolist() if isinstance(step, StoredArray) else step
    return Converted(
        architecture=online.architecture,
        padding="same",
        encoder=online.encoder,
        heads=online.heads,
        target_encoder=None if target is None else target.encoder,
        target_heads={}
        if target is None
        else {name: head for name, head in target.heads.items() if name == "projector"},
        origin="a BYOL checkpoint in the layout of google-deepmind/deepmind-research, folder byol "
        "(Haiku parameters in a pickle)"
        + (f", saved at step {step:,}" if type(step) is int else ""),
        left_out=(
            "the classifier that learned beside it",
            "the optimizer's state",
            *(("the target's predictor",) if target else ()),
        ),
    )


def _networks(state: dict, which: str, path: Path, size: int) -> _Networks:
    what = f"{path}: {which}"
    tensors = dict(_flat(_part(state, f"{which}_params", path), f"{what}_params"))
    for name, tensor in _flat(_part(state, f"{which}_state", path), f"{what}_state"):
        # A moving average keeps its sum before correction and its count too; `average` is what
        # inference uses.
        if not name.endswith(("_ema/hidden", "_ema/counter")):
            tensors[name] = tensor
    stems = [match for match in map(_STEM.fullmatch, tensors) if match]
    if len(stems) != 1:
        found = (
            named([match[0] for match in stems])
            if stems
            else f"none among {named(list(tensors)) or 'no tensors'}"
        )
        raise ConversionError(
            f'{what}: expected one ResNet, with a first convolution "<name>/initial_conv/w"; found '
            f"{found}"
        )
    (stem,) = stems
    root = f"{stem['root']}/" if stem["root"] else ""
    of_encoder = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith((f"{root}initial_", f"{root}block_group_"))
    }
    blocks = [
        match for match in (_BLOCK.match(name.removeprefix(root)) for name in of_encoder) if match
    ]
    first = tensors.get(f"{root}block_group_0/block_0/conv_0/w")
    architecture = recognised(
        what,
        {(int(match[1]), int(match[2])) for match in blocks},
        tensors[stem[0]].shape,
        first.shape[-1] if first is not None and first.shape else 0,
        f"{root}block_group_0/block_0/conv_2/w" in tensors,
    )
    encoder = build_encoder(architecture.name, size, architecture.width)
    slots = [
        _slot(layer, variable, root, stem["stem"])
        for layer in encoder.layers
        for variable in layer.variables
    ]
    fill(slots, of_encoder, f"{what}_params")
    heads, rest = {}, {name: tensor for name, tensor in tensors.items() if name not in of_encoder}
    features = encoder.output_shape[-1]
    for name in ("projector", "predictor"):
        of_head = {
            tensor_name: tensor
            for tensor_name, tensor in rest.items()
            if tensor_name.startswith(f"{name}/")
        }
        if of_head:
            heads[name] = _head(name, of_head, features, what)
            features = heads[name].output_shape[-1]
    unknown = [name for name in rest if name.split("/")[0] not in (*heads, *_LEFT_OUT)]
    if unknown:
        raise ConversionError(f"{what}_params: {len(unknown)} unknown tensors: {named(unknown)}")
    return _Networks(architecture, encoder, heads)


def _slot(layer: keras.layers.Layer, variable: keras.Variable, root: str, stem: str) -> Slot:
    """The tensor that a variable of the encoder comes from."""
    if layer.name in ("stem_conv", "stem_bn"):
        module = stem if layer.name == "stem_conv" else "initial_batchnorm"
    else:
        group, block, shortcut, kind, number = _LAYER.fullmatch(layer.name).groups()
        word = {"conv": "conv", "bn": "batchnorm"}[kind]
        module = f"block_group_{int(group) - 1}/block_{int(block) - 1}/" + (
            f"shortcut_{word}" if shortcut else f"{word}_{int(number) - 1}"
        )
    return Slot(
        f"{root}{module}/{_LEAVES[variable.name]}",
        variable,
        tuple(range(4)) if variable.name == "kernel" else None,
    )


def _head(name: str, tensors: dict[str, Tensor], features: int, what: str) -> keras.Model:
    widths = []
    for layer in ("linear", "linear_1"):
        tensor = tensors.get(f"{name}/{layer}/w")
        if tensor is None or len(tensor.shape) != 2:
            received = "none" if tensor is None else list(tensor.shape)
            raise ConversionError(
                f"{what}_params: expected {name}/{layer}/w of shape [inputs, outputs]; received "
                f"{received}"
            )
        widths.append(tensor.shape[1])
    head = mlp_head(features, *widths, name)
    slots = [
        Slot(
            f"{name}/{_HEAD_LAYERS[layer.name.removeprefix(f'{name}_')]}/{_LEAVES[variable.name]}",
            variable,
            (0, 1) if variable.name == "kernel" else None,
        )
        for layer in head.layers
        for variable in layer.variables
    ]
    fill(slots, tensors, f"{what}_params")
    return head


def _part(tree: Any, name: str, path: Path) -> dict:
    """A mapping's mapping of this name."""
    part = tree.get(name) if isinstance(tree, dict) else None
    if not isinstance(part, dict):
        found = named([str(key) for key in tree]) if isinstance(tree, dict) else type(tree).__name__
        raise ConversionError(
            f'{path}: expected a BYOL checkpoint, with a mapping "{name}"; found '
            f"{found or 'nothing'}"
        )
    return part


def _flat(tree: dict, what: str) -> Iterator[tuple[str, Tensor]]:
    """(module without Haiku's `~`, a slash, and the parameter's name; the tensor) of each
    parameter."""
    seen = set()
    for module, parameters in tree.items():
        if type(module) is not str or not isinstance(parameters, dict):
            raise ConversionError(
                f"{what}: expected modules with mappings of arrays; received {module!r:.60}"
            )
        for leaf, array in parameters.items():
            name = "/".join([*(part for part in module.split("/") if part != "~"), str(leaf)])
            if not isinstance(array, StoredArray):
                raise ConversionError(
                    f"{what}: expected an array as {name}; received {type(array).__name__}"
                )
            if name in seen:
                raise ConversionError(f"{what}: expected each tensor once; received {name} twice")
            seen.add(name)
            yield name, Tensor(array.shape, array.dtype, array.numpy)
