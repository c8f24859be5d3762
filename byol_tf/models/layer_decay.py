"""Learning rates that fall with the distance of an encoder's layers from its output.

As BEiT, MAE and timm do for pre-trained networks: early layers know what all photos share, and
should move least. They count a vision transformer's blocks; here any encoder is divided into as
many groups as ViT-Base has blocks, so that a published decay means the same for every network.
"""

from collections.abc import Iterator

import keras

from byol_tf import compat

GROUPS = 12


def depth_groups(encoder: keras.Model) -> list[list[keras.Variable]]:
    """Divides the trainable variables of an encoder by depth.

    Groups have equal numbers of kernels, counted in the order in which layers are called (for a
    subclassed model: created). Biases, and scales and offsets of a normalisation, belong to the
    kernel before them.

    Args:
        encoder: built.

    Returns:
        At most `GROUPS` lists, that of the first layers first; fewer if there are fewer kernels.
    """
    positions: list[tuple[int, keras.Variable]] = []
    kernels, seen = 0, set[int]()
    for variables in _by_layer(encoder):
        new = [variable for variable in variables if id(variable) not in seen]
        seen.update(map(id, new))
        kernels += any(len(variable.shape) > 1 for variable in new)
        positions += [(max(kernels - 1, 0), variable) for variable in new]
    count = min(GROUPS, max(kernels, 1))
    groups: list[list[keras.Variable]] = [[] for _ in range(count)]
    for position, variable in positions:
        groups[count * position // max(kernels, 1)].append(variable)
    return groups


def _by_layer(layer: keras.Layer) -> Iterator[list[keras.Variable]]:
    """Yields the trainable variables of each layer that aren't those of a layer inside it."""
    inner = layer.layers if isinstance(layer, keras.Model) else compat.inner_layers(layer)
    inside = {id(variable) for each in inner for variable in each.trainable_variables}
    yield [variable for variable in layer.trainable_variables if id(variable) not in inside]
    for each in inner:
        yield from _by_layer(each)
