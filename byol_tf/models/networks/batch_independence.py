"""Detection of models in which an image's output doesn't depend on the rest of its batch."""

import keras
from keras import layers

from byol_tf.models.networks.conv2d import Conv2D
from byol_tf.models.networks.data_init import DataInit
from byol_tf.models.networks.group_norm import GroupNorm
from byol_tf.models.networks.weight_standardization import WSConv2D, WSDense

# Compared by type, as a subclass may do anything. `BatchNormalization` is missing on purpose.
_INDEPENDENT_LAYERS = {
    # shapes
    layers.Cropping2D,
    layers.Flatten,
    layers.InputLayer,
    layers.Permute,
    layers.Rescaling,
    layers.Reshape,
    layers.ZeroPadding2D,
    # convolutions and linear layers
    Conv2D,
    WSConv2D,
    WSDense,
    layers.Conv2D,
    layers.Dense,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    # activations
    layers.Activation,
    layers.ELU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ReLU,
    layers.Softmax,
    # pooling
    layers.AveragePooling2D,
    layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling2D,
    layers.MaxPooling2D,
    # normalization
    DataInit,
    GroupNorm,
    layers.GroupNormalization,
    layers.LayerNormalization,
    # sums of branches
    layers.Add,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Subtract,
}


def batch_independent(model: keras.Model) -> bool:
    """Returns whether a model is known to treat each image alone.

    Then both views can share a forward pass. Known are functional and `Sequential` models, nested
    ones too, of the layers listed in this module without an `activity_regularizer`, whose loss is a
    mean over the batch.
    """
    if not type(model).__module__.startswith("keras."):
        return False  # a subclass may override `call`
    # A functional model has more operations than layers: `a + b` is an operation.
    return all(map(_is_independent, getattr(model, "operations", model.layers)))


def _is_independent(operation: keras.Operation) -> bool:
    if isinstance(operation, keras.Model):
        return batch_independent(operation)
    regularizer = getattr(operation, "activity_regularizer", None)
    return type(operation) in _INDEPENDENT_LAYERS and regularizer is None
