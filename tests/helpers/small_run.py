"""A run folder as training leaves it, made without training, for tests of what follows it."""

import json
from pathlib import Path

import numpy as np

from byol_tf.runs.folder import RunFolder, environment

CONFIG = {
    "name": "tiny",
    "data": {"source": "digits"},
    "views": {"size": 32},
    "encoder": {"name": "convnet", "width": 0.25},
    "projector": {"hidden_size": 16, "output_size": 8},
    "predictor": {"hidden_size": 16},
    "optimizer": {"base_learning_rate": 0.001},
    "training": {"epochs": 1, "batch_size": 64},
    "devices": {"strategy": "cpu"},
}

HISTORY = """epoch,loss,probe_accuracy,knn_accuracy,projection_std,projection_cosine,effective_rank
0,,0.2,0.1,0.5,0.5,50
1,2,0.6,0.5,0.7,0.3,30
"""


def write_run(root: Path, config: dict = CONFIG) -> RunFolder:
    """Writes a run's config, history, checkpoint and exported encoder, without result and figures.

    Args:
        root: of the run folder, which is made.
        config: as JSON types.
    """
    import keras

    from byol_tf.config.loading import load_config
    from byol_tf.config.schedule import training_schedule
    from byol_tf.export.saved_model import export_encoder
    from byol_tf.models.from_config import build_model, compile_model
    from byol_tf.models.inference import inference_model
    from byol_tf.runs.checkpoints import write_checkpoint
    from byol_tf.train.callbacks.checkpoint import model_arrays

    folder = RunFolder(root)
    folder.root.mkdir()
    folder.config.write_text(json.dumps(config))
    folder.history.write_text(HISTORY)
    folder.environment.write_text(
        json.dumps(environment() | {"command": ["byol", "train"], "data_fingerprint": "digits-0"})
    )
    resolved = load_config(folder.config)
    keras.config.set_dtype_policy(resolved.devices.precision)
    try:
        model = build_model(resolved)
        compile_model(model, resolved, training_schedule(resolved, 640))
        draw = np.random.default_rng(0)
        # Moving statistics too, so that a mix-up of modes or of variables shows.
        for variable in model.encoder.variables:
            positive = variable.name == "moving_variance"
            variable.assign(
                draw.uniform(0.3, 1.0, variable.shape)
                if positive
                else variable + 0.1 * draw.normal(size=variable.shape)
            )
        write_checkpoint(folder.checkpoints, 1, 0, model_arrays(model), {})
        views = resolved.views
        export_encoder(
            inference_model(model.encoder, views.size, views.mean, views.std), folder.export
        )
    finally:
        keras.config.set_dtype_policy("float32")
    return folder
