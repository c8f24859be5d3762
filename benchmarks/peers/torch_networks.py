"""The networks of `benchmarks.learn` in PyTorch, and byol_tf's weights in them.

A layer has the name of its Keras twin, with a dot for some of the underscores.

Keras' `same` padding of a layer with a stride adds a row below and a column at the right, PyTorch's
`padding=1` one above and at the left. With kernels and photos turned by half a turn the two do the
same, at no cost.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from benchmarks.peers.torch_method import TorchMethod
from benchmarks.peers.torchvision_import import torchvision


class _Pool(nn.Module):
    def forward(self, maps):
        return maps.mean((2, 3))


def _convnet() -> tuple[nn.Module, int]:
    layers, channels = OrderedDict(), 3
    for index, (filters, stride) in enumerate(((32, 2), (64, 2), (128, 2), (128, 1)), start=1):
        layers[f"conv{index}"] = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        layers[f"bn{index}"] = nn.BatchNorm2d(filters)
        layers[f"relu{index}"] = nn.ReLU()
        channels = filters
    layers["pool"] = _Pool()
    return nn.Sequential(layers), channels


def _conv_bn(channels: int, filters: int, kernel: int, stride: int) -> OrderedDict:
    conv = nn.Conv2d(channels, filters, kernel, stride, (kernel - 1) // 2, bias=False)
    return OrderedDict(conv=conv, bn=nn.BatchNorm2d(filters))


class _Stage(nn.Module):
    """A convolution with stride 2 and a residual block."""

    def __init__(self, channels, filters):
        super().__init__()
        self.down = nn.Sequential(_conv_bn(channels, filters, 3, 2) | {"relu": nn.ReLU()})
        self.block1 = nn.Sequential(_conv_bn(filters, filters, 3, 1) | {"relu": nn.ReLU()})
        self.block2 = nn.Sequential(_conv_bn(filters, filters, 3, 1))
        self.relu = nn.ReLU()

    def forward(self, maps):
        maps = self.down(maps)
        return self.relu(maps + self.block2(self.block1(maps)))


def _residual() -> tuple[nn.Module, int]:
    layers = OrderedDict(stem=nn.Sequential(_conv_bn(3, 32, 2, 2) | {"relu": nn.ReLU()}))
    channels = 32
    for stage, filters in enumerate((64, 128, 256), start=1):
        layers[f"stage{stage}"] = _Stage(channels, filters)
        channels = filters
    layers["pool"] = _Pool()
    return nn.Sequential(layers), channels


def torchvision_resnet(name: str) -> tuple[nn.Module, int]:
    """Returns a ResNet of torchvision without classifier, and the width of its representations."""
    network = getattr(torchvision.models, name)()
    features, network.fc = network.fc.in_features, nn.Identity()
    return network, features


def _resnet18() -> tuple[nn.Module, int]:
    """Builds a ResNet-18 with the stem for 32 px images."""
    network, features = torchvision_resnet("resnet18")
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return network, features


def _name_in_resnet(name: str) -> str:
    """torchvision's name of a layer as byol_tf's."""
    name = re.sub(r"^(conv|bn)1$", r"stem_\1", name)
    name = re.sub(r"^layer(\d)\.(\d)", lambda n: f"group{n[1]}_block{int(n[2]) + 1}", name)
    return name.replace("downsample.0", "shortcut_conv").replace("downsample.1", "shortcut_bn")


NETWORKS = {"convnet": _convnet, "residual": _residual, "resnet18": _resnet18}
"""Name -> function that returns a network and the width of its representations."""
TURNED = ("convnet", "residual")
"""Networks that get photos and kernels turned by half a turn."""
_HEAD_NAMES = {"layers.0": "hidden", "layers.1": "bn", "layers.3": "output"}
_TORCH_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_weights(method: TorchMethod, weights: Mapping[str, np.ndarray], network: str) -> None:
    """Gives byol_tf's weights to all networks of a method.

    Args:
        method: its momentum network becomes a copy of the online one.
        weights: "ROLE/LAYER/VARIABLE" -> array, where the role is `encoder`, `projector` or
            `predictor`.
        network: name of the encoder in `NETWORKS`.
    """
    rename = _name_in_resnet if network == "resnet18" else str
    _load(method.encoder, weights, lambda name: "encoder/" + rename(name), network in TURNED)
    for role in ("projector", "predictor"):
        if (head := getattr(method, role)) is not None:
            _load(head, weights, lambda name: f"{role}/{role}_{_HEAD_NAMES[name]}", False)  # noqa: B023
    if method.momentum is not None:
        method.momentum.load_state_dict(method.online.state_dict())


def _load(
    module: nn.Module, weights: Mapping[str, np.ndarray], rename: Callable, turned: bool
) -> None:
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d):
            continue
        prefix = rename(name).replace(".", "_") + "/"
        state = {}
        for key in (key for key in weights if key.startswith(prefix)):
            array, variable = weights[key], key.removeprefix(prefix)
            if array.ndim == 4:
                array = array[::-1, ::-1] if turned else array
                array = array.transpose(3, 2, 0, 1)
            elif array.ndim == 2:
                array = array.T
            state[_TORCH_NAMES.get(variable, variable)] = torch.from_numpy(array.copy())
        wanted = {name for name in layer.state_dict() if name != "num_batches_tracked"}
        if state.keys() != wanted:
            raise ValueError(f"{prefix}: expected {sorted(wanted)}; found {sorted(state)}")
        layer.load_state_dict(state, strict=False)
