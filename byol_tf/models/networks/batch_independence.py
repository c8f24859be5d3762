"""Whether a network treats each image alone."""

import keras
from keras import layers

from byol_tf.models.networks.conv2d import Conv2D
from byol_tf.models.networks.data_init import DataInit
from byol_tf.models.networks.group_norm import GroupNorm
from byol_tf.models.networks.weight_standardization import WSConv2D, WSDense

_KINDS = {
    *(
        layers.InputLayer,
        layers.Reshape,
        layers.Flatten,
        layers.Permute,
        layers.Rescaling,
        layers.ZeroPadding2D,
        layers.Cropping2D,
    ),
    *(
        layers.Conv2D,
        layers.DepthwiseConv2D,
        layers.SeparableConv2D,
        layers.Dense,
        Conv2D,
        WSConv2D,
        WSDense,
    ),
    *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU, layers.Softmax),
    *(
        layers.MaxPooling2D,
        layers.AveragePooling2D,
        layers.GlobalMaxPooling2D,
        layers.GlobalAveragePooling2D,
    ),
    *(layers.GroupNormalization, layers.LayerNormalization, GroupNorm, DataInit),
    *(layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum),
}


def batch_independent(model: keras.Model) -> bool:
    """True if an image's output is known not to depend on the rest of its batch, so that views may
    share a forward pass.

    Known are functional and `Sequential` models, nested ones too, whose layers are all of kinds
    listed here; a subclass of such a model or kind isn't, nor is `BatchNormalization`.
    """
    if not type(model).__module__.startswith("keras."):
        return False
    # In a functional model there are more operations than layers: `a + b` is one too.
    return all(map(_independent, getattr(model, "operations", model.layers)))


def _independent(layer) -> bool:
    return batch_independent(layer) if isinstance(layer, keras.Model) else type(layer) in _KINDS
