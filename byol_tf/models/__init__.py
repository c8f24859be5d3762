"""BYOL as a Keras model, its losses, optimizers and target update.

Importing it registers their classes with Keras, so that `keras.models.load_model` finds them.
"""

from byol_tf.devices import check_keras_settings

check_keras_settings()

from byol_tf.models import byol, ema, networks, optimizers
from pipelines.views import fused

__all__ = ["byol", "ema", "fused", "networks", "optimizers"]
