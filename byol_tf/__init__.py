"""Bootstrap your own latent (BYOL) for Keras and TensorFlow.

The names below are imported when they are first used, so that a command can report a mistake in
its config before it imports TensorFlow.

Example:
    ```python
    import keras

    from byol_tf import BYOL, build_encoder, cosine_tau

    model = BYOL(build_encoder("resnet18", image_size=96), tau=cosine_tau(0.99, total_steps=5000))
    model.compile(keras.optimizers.Adam(3e-4))
    model.fit(views, epochs=10)
    ```
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]


def _check_import_path() -> None:
    """Checks that `pipelines` is the package that is installed beside this one; imports nothing.

    `python -m` imports from the current folder first, where a user may have a `pipelines` too.

    Raises:
        SystemExit: with exit code 2 and a message, if this process is a command of byol_tf.
        ImportError: in any other process.
    """
    spec = importlib.util.find_spec("pipelines")
    if spec is None or spec.origin is None:
        return  # the first import of it reports that it is missing
    origin = Path(spec.origin)
    if origin.resolve().is_relative_to(_ROOT / "pipelines"):
        return
    path = origin.parent if origin.name == "__init__.py" else origin
    text = (
        f"{path}: expected byol_tf's own pipelines, {_ROOT / 'pipelines'}, to be found first; "
        "rename that one, or run this elsewhere"
    )
    if sys.argv[:1] == ["-m"]:  # while `python -m byol_tf...` looks for its module
        print(text, file=sys.stderr)  # noqa: T201
        raise SystemExit(2)
    raise ImportError(text)


_check_import_path()
__version__ = "0.1.0"

_HOMES = {
    "BYOL": "byol_tf.models.byol",
    "Config": "byol_tf.config.schema",
    "Experiment": "byol_tf.train.experiment",
    "FusedViews": "pipelines.views.fused",
    "LARS": "byol_tf.models.optimizers",
    "Objective": "byol_tf.models.losses",
    "RunFolder": "byol_tf.runs.folder",
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
    "export_encoder": "byol_tf.export.saved_model",
    "image_batches": "pipelines.batches",
    "inference_model": "byol_tf.models.inference",
    "linear_accuracy": "byol_tf.evaluate.logistic",
    "load_config": "byol_tf.config.loading",
    "load_run_encoder": "byol_tf.runs.encoders",
    "mlp_head": "byol_tf.models.networks",
    "open_source": "pipelines.sources",
    "preset": "pipelines.policy",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the names are the keys


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'byol_tf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
