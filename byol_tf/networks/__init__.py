"""Encoders, heads and their normalisation."""

from byol_tf.networks.encoder import build_encoder
from byol_tf.networks.heads import mlp_head
from byol_tf.networks.normalization import BatchNorm, batch_norm

__all__ = ["BatchNorm", "batch_norm", "build_encoder", "mlp_head"]
