"""Encoders, heads and their normalisation layers."""

from byol_tf.models.networks.batch_independence import batch_independent
from byol_tf.models.networks.batch_norm import BatchNorm
from byol_tf.models.networks.blocks import NORMALIZATIONS
from byol_tf.models.networks.conv2d import Conv2D
from byol_tf.models.networks.data_init import DataInit, initialize_from_data
from byol_tf.models.networks.encoders import build_encoder
from byol_tf.models.networks.group_norm import GroupNorm
from byol_tf.models.networks.heads import mlp_head
from byol_tf.models.networks.rematerialize import rematerialize
from byol_tf.models.networks.weight_standardization import WSConv2D, WSDense

__all__ = [
    "NORMALIZATIONS",
    "BatchNorm",
    "Conv2D",
    "DataInit",
    "GroupNorm",
    "WSConv2D",
    "WSDense",
    "batch_independent",
    "build_encoder",
    "initialize_from_data",
    "mlp_head",
    "rematerialize",
]
