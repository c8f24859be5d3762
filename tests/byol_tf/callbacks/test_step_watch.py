"""Steps that were left out and jumps of the loss are said once an epoch, and counted."""

import keras
import numpy as np
import tensorflow as tf

from byol_tf.callbacks.step_watch import StepWatch
from byol_tf.target import TargetUpdate, constant_tau
from tests.byol_tf import tiny


class Jumps(tiny.BYOL):
    """Its loss is ten times as large at some steps (1 is the first)."""

    at = (50, 151)

    def _gradients(self, views, variables):
        measures, gradients = super()._gradients(views, variables)
        jumps = tf.reduce_any(self.optimizer.iterations.value + 1 == tf.constant(self.at, self.optimizer.iterations.value.dtype))
        return measures | {"loss": tf.where(jumps, 10.0, 1.0) * measures["loss"]}, gradients


def test_what_is_said(monkeypatch):
    monkeypatch.setattr(tiny, "BYOL", Jumps)
    lines = []
    model = tiny.model(on_nonfinite="skip")
    model.compile(keras.optimizers.SGD(1e-4), jit_compile=False, steps_per_execution=3)
    first, second = tiny.views(180, 8)
    for batch in (3, 5, 169):
        first[batch, 0, 0, 0, 0] = np.nan
    data = tf.data.Dataset.from_tensor_slices((first, second))
    history = model.fit(
        data.repeat(),
        epochs=2,
        steps_per_epoch=90,
        verbose=0,
        shuffle=False,
        callbacks=[TargetUpdate(constant_tau(0.9)), StepWatch(lines.append)],
    ).history
    assert history["skipped_steps"] == [2, 3]
    assert [line.split(",")[0].split(":")[0] for line in lines] == [
        "step 4 left out",
        "2 steps of epoch 1 were left out",
        # The optimizer's 151st step, as two were left out before it. At its 50th there were fewer than 100 to be held against.
        "the loss jumped at step 153",
        "step 170 left out",
    ]
