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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers, the names that `_HOMES` lists
    from byol_tf.config.loading import load_config as load_config
    from byol_tf.config.schema import Config as Config
    from byol_tf.evaluate.logistic import linear_accuracy as linear_accuracy
    from byol_tf.export.saved_model import export_encoder as export_encoder
    from byol_tf.models.byol import BYOL as BYOL
    from byol_tf.models.ema import TargetUpdate as TargetUpdate
    from byol_tf.models.ema import constant_tau as constant_tau
    from byol_tf.models.ema import cosine_tau as cosine_tau
    from byol_tf.models.ema import dropped_tau as dropped_tau
    from byol_tf.models.inference import inference_model as inference_model
    from byol_tf.models.losses import Objective as Objective
    from byol_tf.models.networks import WSConv2D as WSConv2D
    from byol_tf.models.networks import WSDense as WSDense
    from byol_tf.models.networks import build_encoder as build_encoder
    from byol_tf.models.networks import mlp_head as mlp_head
    from byol_tf.models.optimizers import LARS as LARS
    from byol_tf.models.optimizers import WarmupSchedule as WarmupSchedule
    from byol_tf.models.optimizers import build_optimizer as build_optimizer
    from byol_tf.models.optimizers import exclude_norm_and_bias as exclude_norm_and_bias
    from byol_tf.runs.encoders import load_run_encoder as load_run_encoder
    from byol_tf.runs.folder import RunFolder as RunFolder
    from byol_tf.train.experiment import Experiment as Experiment
    from pipelines.batches import image_batches as image_batches
    from pipelines.policy import preset as preset
    from pipelines.sources import open_source as open_source
    from pipelines.views.fused import FusedViews as FusedViews

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


if not TYPE_CHECKING:  # with it, a misspelt name would have a type

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'byol_tf' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
