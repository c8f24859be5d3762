"""Bootstrap your own latent (BYOL) for Keras and TensorFlow.

The names below are loaded when first used, so that a command can report a mistake in its config
before TensorFlow is imported.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

_OURS = Path(__file__).resolve().parents[1]


def check_import_path() -> None:
    """Looks whether `pipelines` is the package that is installed beside this one; imports nothing.

    `python -m` imports from the current folder first, where a frequent name like that may be the
    user's own.

    Raises:
        SystemExit: with exit code 2, and a message, where this process is a command of ours.
        ImportError: in any other process.
    """
    found = importlib.util.find_spec("pipelines")
    if (
        found is None
        or found.origin is None
        or Path(found.origin).resolve().is_relative_to(_OURS / "pipelines")
    ):
        return  # what isn't there at all is told by the first import of it
    place = Path(found.origin)
    place = place.parent if place.name == "__init__.py" else place
    text = (
        f"{place}: expected byol_tf's own pipelines, {_OURS / 'pipelines'}, to be found first; "
        "rename that one, or run this elsewhere"
    )
    if sys.argv[:1] == ["-m"]:  # while `python -m byol_tf...` looks for its module
        print(text, file=sys.stderr)
        raise SystemExit(2)
    raise ImportError(text)


check_import_path()
__version__ = "0.1.0"

_HOMES = {
    "BYOL": "byol_tf.models.byol",
    "FusedViews": "pipelines.views.fused",
    "LARS": "byol_tf.models.optimizers",
    "Objective": "byol_tf.models.losses",
    "TargetUpdate": "byol_tf.models.ema",
    "WSConv2D": "byol_tf.models.networks",
    "WSDense": "byol_tf.models.networks",
    "WarmupSchedule": "byol_tf.models.optimizers",
    "build_encoder": "byol_tf.models.networks",
    "build_optimizer": "byol_tf.models.optimizers",
    "constant_tau": "byol_tf.models.ema",
    "cosine_tau": "byol_tf.models.ema",
    "dropped_tau": "byol_tf.models.ema",
    "exclude_norm_and_bias": "byol_tf.models.optimizers",
    "image_batches": "pipelines.batches",
    "inference_model": "byol_tf.models.inference",
    "linear_accuracy": "byol_tf.evaluate.logistic",
    "mlp_head": "byol_tf.models.networks",
    "open_source": "pipelines.sources",
    "preset": "pipelines.policy",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the names are the keys


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'byol_tf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted(__all__)
