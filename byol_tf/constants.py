"""Facts of the networks that both the config's schema and the networks need.

They stand here, below both, because the config may not import TensorFlow, so that a mistake in it
is reported at once, and the networks may not import the config.
"""

from typing import Literal

Normalization = Literal["batch", "layer", "group", "none", "data_init"]
"""Normalization of an encoder or a head, see `byol_tf.models.networks.blocks`."""
Padding = Literal["same", "symmetric"]
"""Padding of layers with a stride, see `byol_tf.models.networks.blocks`."""
GROUPS = 16
"""Groups of group normalization (paper without batch statistics, section 3.3)."""
RESNETS = {
    "resnet8": (1, 1, 1),
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
    "resnet200": (3, 24, 36, 3),
    "wide_resnet50_2": (3, 4, 6, 3),
}
"""Number of residual blocks in each group. ResNet-8 is that of He et al. for small images, section
4.2, with n = 1, but four times as wide and with projections as shortcuts."""
ENCODERS = ("convnet", *RESNETS)
"""Encoders that `byol_tf.build_encoder` builds."""
ENCODER_KEYS_OF_ANY_NETWORK = {"weights", "frozen_epochs", "freeze_batch_norm", "inference_size"}
"""Keys of the config's `encoder` that suit a network from elsewhere too."""
PYTHON_MODEL = "keras.Model"
"""The `encoder.name` of a model that was given to `Experiment` in Python."""
CONVNET_STEM_CHANNELS = 32
"""Channels of the first layer of the small `convnet`, at width 1."""
RESNET_STEM_CHANNELS = 64
"""Channels of a ResNet's first layer, at width 1 (He et al. 2015, table 1)."""
APPLICATIONS = "keras.applications/"
"""Prefix of the networks of `keras.applications` in `encoder.name`."""
IMAGENET = "imagenet"
"""Value of `encoder.weights`: those that Keras downloads for an encoder of `APPLICATIONS`."""
HIDDEN_SIZE = 4096
"""Width of the hidden layer of projector and predictor (BYOL paper, section 3.3)."""
PROJECTION_SIZE = 256
"""Width of the projection and the prediction (BYOL paper, section 3.3)."""
