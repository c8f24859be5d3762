"""Bootstrap your own latent (BYOL) for Keras and TensorFlow.

The names below are loaded when first used, so that a command can report a mistake in its config before TensorFlow is imported.
"""

import importlib

from byol_tf.shadowing import refuse_other_packages

refuse_other_packages()
__version__ = "0.1.0"

_HOMES = {
    "BYOL": "byol_tf.byol",
    "LARS": "byol_tf.optimizers",
    "Objective": "byol_tf.objectives",
    "TargetUpdate": "byol_tf.target",
    "WSConv2D": "byol_tf.networks",
    "WSDense": "byol_tf.networks",
    "build_encoder": "byol_tf.networks",
    "constant_tau": "byol_tf.target",
    "cosine_tau": "byol_tf.target",
    "dropped_tau": "byol_tf.target",
    "mlp_head": "byol_tf.networks",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the names are the keys


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'byol_tf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted(__all__)
