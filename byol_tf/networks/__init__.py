"""Encoders, heads and their normalisation."""

from byol_tf.networks.batch_independence import batch_independent
from byol_tf.networks.convolution import Conv2D
from byol_tf.networks.data_init import DataInit, initialize_from_data
from byol_tf.networks.encoder import build_encoder
from byol_tf.networks.group_norm import GroupNorm
from byol_tf.networks.heads import mlp_head
from byol_tf.networks.normalization import BatchNorm, batch_norm
from byol_tf.networks.parts import NORMALIZATIONS
from byol_tf.networks.recompute import recomputed
from byol_tf.networks.weight_standardization import WSConv2D, WSDense

__all__ = [
    "NORMALIZATIONS",
    "BatchNorm",
    "Conv2D",
    "DataInit",
    "GroupNorm",
    "WSConv2D",
    "WSDense",
    "batch_independent",
    "batch_norm",
    "build_encoder",
    "initialize_from_data",
    "mlp_head",
    "recomputed",
]
