"""Which ResNet a file's tensors are of, by what it has of blocks and channels."""

from collections.abc import Collection
from typing import NamedTuple

from byol_tf.errors import ConversionError
from byol_tf.models.networks.resnet import BLOCKS, INNER_WIDTHS, TWO_LAYER_BLOCKS

_FIRST_CHANNELS = 64


class Architecture(NamedTuple):
    """An encoder as `networks.build_encoder` takes it.

    Attributes:
        name: a key of `resnet.BLOCKS`.
        width: of all channels.
    """

    name: str
    width: float


def recognised(
    what: str,
    blocks: Collection[tuple[int, int]],
    stem: tuple[int, ...],
    inner: int,
    bottleneck: bool,
) -> Architecture:
    """The architecture, by the few things that tell one ResNet from the other; its tensors are
    checked when they are used.

    Args:
        what: the file and its part, for messages.
        blocks: (group, block) of each residual block, counted from 0.
        stem: (height, width, inputs, outputs) of the first convolution's kernel.
        inner: output channels of the first block's first convolution.
        bottleneck: whether a block has three convolutions.

    Raises:
        ConversionError: for a network that isn't among `resnet.BLOCKS`.
    """
    if len(stem) != 4 or stem[:3] != (7, 7, 3) or stem[3] < 1:
        raise ConversionError(
            f"{what}: expected a first convolution of 7 x 7 on 3 channels; received a kernel "
            f"{list(stem)}. Of another stem the tensors "
            "don't tell stride and pooling"
        )
    counts = tuple(
        max((block for at, block in blocks if at == group), default=-1) + 1 for group in range(4)
    )
    width = stem[3] / _FIRST_CHANNELS
    for name in BLOCKS:
        base = stem[3] * INNER_WIDTHS.get(name, 1)
        if (
            BLOCKS[name] == counts
            and (name not in TWO_LAYER_BLOCKS) == bottleneck
            and base == inner
        ):
            return Architecture(name, width)
    kind = "three" if bottleneck else "two"
    raise ConversionError(
        f"{what}: expected one of {', '.join(BLOCKS)}; received groups of "
        f"{', '.join(map(str, counts))} blocks of {kind} convolutions, "
        f"{stem[3]} channels after the first one and {inner} in the first block"
    )
