"""Recognition of a ResNet's architecture by its tensors, and the names of its layers."""

import re
from collections.abc import Collection
from typing import NamedTuple

from byol_tf.constants import RESNETS
from byol_tf.errors import ConversionError
from byol_tf.models.networks.resnet import INNER_WIDTHS, TWO_LAYER_BLOCKS

IMAGE_SIZE = 224
"""Side in pixels of the images that DeepMind's and torchvision's encoders were trained on. Mean and
standard deviation, ImageNet's, are the config's defaults (torchvision's, and those of
deepmind-research, `byol/utils/dataset.py`)."""
_STEM_CHANNELS = 64
_LAYER_NAME = re.compile(r"group(\d+)_block(\d+)_(?:(shortcut)_)?(conv|bn)(\d*)")


class Architecture(NamedTuple):
    """An encoder as `networks.build_encoder` builds it.

    Attributes:
        name: a key of `constants.RESNETS`.
        width: factor of all numbers of channels.
    """

    name: str
    width: float


class BlockLayer(NamedTuple):
    """A layer inside a residual block, as its name in `networks.build_encoder` has it.

    Attributes:
        group: index of the group of blocks, from 0.
        block: index of the block in its group, from 0.
        shortcut: whether the layer is on the shortcut.
        type: `conv` or `bn`.
        position: index among the block's layers of this type, from 0; 0 on the shortcut.
    """

    group: int
    block: int
    shortcut: bool
    type: str
    position: int


def parse_layer_name(name: str) -> BlockLayer:
    """Parses a layer's name, such as `group2_block1_shortcut_conv` or `group1_block2_bn3`.

    Raises:
        ValueError: for the name of a layer outside the residual blocks.
    """
    match = _LAYER_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"expected a layer of a residual block; received {name}")
    group, block, shortcut, layer_type, number = match.groups()
    return BlockLayer(
        int(group) - 1, int(block) - 1, shortcut is not None, layer_type, int(number or 1) - 1
    )


def infer_architecture(
    source: str,
    blocks: Collection[tuple[int, int]],
    stem_shape: tuple[int, ...],
    inner_channels: int,
    bottleneck: bool,
) -> Architecture:
    """Infers the architecture from what distinguishes one ResNet from another.

    The other tensors are checked when they are assigned.

    Args:
        source: the file and the part of it that the tensors are from, for messages.
        blocks: (group, block) of each residual block, counted from 0.
        stem_shape: height, width, inputs and outputs of the first convolution's kernel.
        inner_channels: output channels of the first block's first convolution.
        bottleneck: whether a block has three convolutions rather than two.

    Raises:
        ConversionError: for a network that isn't among `constants.RESNETS`.
    """
    if len(stem_shape) != 4 or stem_shape[:3] != (7, 7, 3) or stem_shape[3] < 1:
        raise ConversionError(
            f"{source}: expected a first convolution of 7 x 7 on 3 channels; received a kernel "
            f"{list(stem_shape)}. The tensors of another stem don't determine its stride and "
            "pooling"
        )
    channels = stem_shape[3]
    counts = tuple(
        max((block for group, block in blocks if group == index), default=-1) + 1
        for index in range(4)
    )
    for name in RESNETS:
        if (
            RESNETS[name] == counts
            and (name not in TWO_LAYER_BLOCKS) == bottleneck
            and channels * INNER_WIDTHS.get(name, 1) == inner_channels
        ):
            return Architecture(name, channels / _STEM_CHANNELS)
    raise ConversionError(
        f"{source}: expected one of {', '.join(RESNETS)}; received groups of "
        f"{', '.join(map(str, counts))} blocks of {'three' if bottleneck else 'two'} convolutions, "
        f"{channels} channels after the first one and {inner_channels} in the first block"
    )
