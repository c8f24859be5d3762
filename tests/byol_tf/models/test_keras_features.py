"""Each row of "Keras features" in docs/python.md: it works, or raises the sentence of the row."""

import copy
import pickle
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf import BYOL, TargetUpdate, constant_tau, cosine_tau
from tests.helpers import tiny
from tests.helpers.replicas import replicas

PAGE = Path(__file__).resolve().parents[3] / "docs" / "python.md"
FIRST, SECOND = (views[0] for views in tiny.views(1, 8))
FEATURES: dict[str, Callable] = {}
ON_REPLICAS: dict[str, Callable] = {}
LONG: set[str] = set()


def feature(row: str, replicas: bool = False, long: bool = False) -> Callable:
    """Registers the function of a row, which takes a temporary folder, or a strategy."""

    def register(function: Callable) -> Callable:
        (ON_REPLICAS if replicas else FEATURES)[row] = function
        if long:  # another fast test has it
            LONG.add(row)
        return function

    return register


def model(tau: float | None = 0.9, **options) -> BYOL:
    return tiny.model(tau=tau, **options)


def compiled(optimizer="sgd", tau: float | None = 0.9, options=None, **arguments) -> BYOL:
    byol = model(tau, **(options or {}))
    byol.compile(optimizer, **{"jit_compile": False} | arguments)
    return byol


def pairs(steps: int = 1, size: int = 8) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors((FIRST[:size], SECOND[:size])).repeat(steps)


def partial(images: int, batch: int) -> tf.data.Dataset:
    values = np.concatenate([FIRST, SECOND])[:images]
    return tf.data.Dataset.from_tensor_slices((values, values)).batch(batch)


def encoder(*layers: keras.layers.Layer) -> keras.Model:
    return keras.Sequential(
        [keras.Input((8, 8, 3)), *layers, keras.layers.GlobalAveragePooling2D()]
    )


def trained(
    of: keras.Model, data: tf.data.Dataset | None = None, callbacks=(), eagerly=False, **options
) -> dict[str, list]:
    byol = tiny.wrapped(of, **{"tau": 0.9} | options)
    byol.compile("sgd", jit_compile=False, run_eagerly=eagerly)
    return byol.fit(data or pairs(), callbacks=list(callbacks), verbose=0).history


def moved(byol: BYOL) -> float:
    return max(
        float(np.abs(online.numpy() - target.numpy()).max())
        for online, target in byol.target_pairs()
    )


@feature("`fit` on a dataset of `(view1, view2)`, or on two arrays, `fit(view1, view2)`", long=True)
def _(folder):
    byol = compiled()
    a = byol.fit(pairs(), verbose=0).history
    b = byol.fit(FIRST, SECOND, batch_size=8, verbose=0).history
    assert a.keys() == b.keys() >= {"loss", "tau", "projection_std"}


@feature("any other batch", long=True)
def _(folder):
    compiled().fit(tf.data.Dataset.from_tensors((FIRST, np.zeros(8, np.float32))), verbose=0)


@feature("views of several numbers of images, or of several dtypes")
def _(folder):
    compiled().fit(tf.data.Dataset.from_tensors((FIRST, SECOND[:1])), verbose=0)


@feature("`BYOL(tau=0.99)`, `BYOL(tau=cosine_tau(...))`, the callback `TargetUpdate`", long=True)
def _(folder):
    byol = compiled(tau=cosine_tau(0.5, 4))
    assert byol.fit(pairs(), verbose=0).history["tau"] == [0.5]
    update = TargetUpdate(constant_tau(0.25))
    assert byol.fit(pairs(), callbacks=[update], verbose=0).history["tau"] == [0.25]
    assert byol.fit(pairs(), verbose=0).history["tau"][0] > 0.5


@feature("`fit` with neither: a warning, and the target stays", long=True)
def _(folder):
    with pytest.warns(UserWarning, match="the target network won't move"):
        compiled(tau=None).fit(pairs(), verbose=0)


@feature("`tau` outside [0, 1]")
def _(folder):
    model(tau=99)


@feature("a schedule of your own that leaves [0, 1]")
def _(folder):
    compiled().fit(pairs(3), callbacks=[TargetUpdate(lambda step: 0.5 + step)], verbose=0)


@feature("a `CallbackList` with a `TargetUpdate`, in several `fit`s")
def _(folder):
    byol = compiled(tau=None)
    callbacks = keras.callbacks.CallbackList([TargetUpdate(0.25)], add_history=True, model=byol)
    for _ in range(2):
        assert byol.fit(pairs(), callbacks=callbacks, verbose=0).history["tau"][-1] == 0.25


@feature('`TargetUpdate(placement="batch_end")` with `steps_per_execution`')
def _(folder):
    update = TargetUpdate(0.9, placement="batch_end")
    compiled(steps_per_execution=2).fit(pairs(2), callbacks=[update], verbose=0)


@feature("`compile(loss=...)`, `compile(metrics=...)`")
def _(folder):
    compiled(metrics=["mae"])


@feature("a subclass with a `compute_loss` or a `compute_metrics`")
def _(folder):
    class Mine(BYOL):
        def compute_loss(self, *args, **kwargs):
            return 0.0

    Mine(tiny.encoder()).compile("sgd")


@feature("metrics of a subclass and of layers: logged, and new each epoch")
def _(folder):
    class Counts(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.calls = keras.metrics.Sum("calls")

        def call(self, x):
            self.calls.update_state(1.0)
            return x

    class Mine(BYOL):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.steps = keras.metrics.Sum("steps")

        def train_step(self, data):
            self.steps.update_state(1.0)
            return super().train_step(data)

    byol = tiny.wrapped(encoder(keras.layers.Conv2D(6, 3), Counts()), of_class=Mine, tau=0.9)
    byol.compile("sgd", jit_compile=False)
    history = byol.fit(pairs(2), epochs=2, validation_data=pairs(), verbose=0).history
    assert (history["steps"], history["calls"]) == ([2.0, 2.0], [4.0, 4.0])  # two views a step
    assert history["val_calls"] == [2.0, 2.0]


@feature(
    "Keras' optimizers, learning rate schedules, clipping, `use_ema`, `loss_scale_factor`",
    long=True,
)
def _(folder):
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    options = {"clipnorm": 1.0, "use_ema": True, "loss_scale_factor": 8.0}
    history = compiled(keras.optimizers.SGD(rate, **options)).fit(pairs(2), verbose=0).history
    assert history["learning_rate"] == pytest.approx([0.1 * 0.5**0.1])


@feature("an optimizer with `gradient_accumulation_steps`")
def _(folder):
    compiled(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))


@feature("a batch that `BYOL(gradient_accumulation_steps=4)` doesn't divide", long=True)
def _(folder):
    compiled(options={"gradient_accumulation_steps": 4}).fit(partial(14, 8), verbose=0)


@feature("`validation_data`, `validation_split`, `evaluate`, `test_on_batch`")
def _(folder):
    byol = compiled()
    assert "val_loss" in byol.fit(pairs(), validation_data=pairs(), verbose=0).history
    before = tiny.all_weights(byol)
    loss = byol.evaluate(pairs(), verbose=0, return_dict=True)["loss"]
    assert byol.test_on_batch(FIRST, SECOND, return_dict=True)["loss"] == pytest.approx(loss)
    for was, now in zip(before, tiny.all_weights(byol), strict=True):
        np.testing.assert_array_equal(was, now)


@feature("`train_on_batch(view1, view2)`")
def _(folder):
    one, other = compiled(), compiled()
    logs = one.train_on_batch(FIRST, SECOND, return_dict=True)
    assert other.fit(pairs(), verbose=0).history["loss"] == pytest.approx([logs["loss"]])


@feature("`sample_weight`, labels")
def _(folder):
    compiled().fit(FIRST, SECOND, sample_weight=np.ones(8), verbose=0)


@feature("`class_weight`")
def _(folder):
    compiled().fit(pairs(), class_weight={0: 1.0}, verbose=0)


@feature("`predict`, and the model as a function")
def _(folder):
    byol = model()
    np.testing.assert_allclose(byol.predict(FIRST, verbose=0), byol(FIRST).numpy(), atol=1e-6)


@feature("`steps_per_execution`, `jit_compile=True`, `run_eagerly=True`", long=True)
def _(folder):
    for options in ({"steps_per_execution": 2}, {"run_eagerly": True}):
        assert compiled(**options).fit(pairs(2), verbose=0).history["tau"]


@feature("a second `fit`, without tracing the step again")
def _(folder):
    byol, traces = compiled(), []
    step = byol.train_step
    byol.train_step = lambda data: traces.append(1) or step(data)
    for _ in range(3):
        byol.fit(pairs(), callbacks=[TargetUpdate(constant_tau(0.5))], verbose=0)
    assert len(traces) == 1


@feature("`add_loss`, `kernel_regularizer`, `activity_regularizer`: added to the loss", long=True)
def _(folder):
    conv = keras.layers.Conv2D(6, 3, kernel_regularizer=keras.regularizers.L2(1e6))
    assert trained(encoder(conv))["loss"][0] > 1000.0


@feature("those that a call adds, with `rematerialize=True`", long=True)
def _(folder):
    convs = [keras.layers.Conv2D(6, 3, activity_regularizer="l2") for _ in range(3)]
    trained(encoder(*convs), rematerialize=True)


@feature("layers frozen before `compile`, and unfrozen before another one", long=True)
def _(folder):
    byol = model()
    byol.encoder.trainable = False
    for _ in range(2):
        before = byol.encoder.get_weights()[0]
        byol.compile("adam", jit_compile=False)
        byol.fit(pairs(2), verbose=0)
        assert np.array_equal(before, byol.encoder.get_weights()[0]) != byol.encoder.trainable
        byol.encoder.trainable = True
    assert moved(byol) > 0.0


@feature("layers unfrozen after `compile`")
def _(folder):
    byol = model()
    byol.encoder.trainable = False
    byol.compile("adam", jit_compile=False)
    byol.encoder.trainable = True
    byol.fit(pairs(), verbose=0)


@feature("a model that is frozen as a whole")
def _(folder):
    byol = model()
    byol.trainable = False
    byol.compile("adam", jit_compile=False)
    byol.fit(pairs(), verbose=0)


@feature("`enable_lora`, `quantize` after `BYOL(...)`")
def _(folder):
    byol = compiled()
    byol.encoder.get_layer("conv").enable_lora(1)
    byol.fit(pairs(), verbose=0)


@feature("an encoder with two inputs")
def _(folder):
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(keras.layers.Add()([first, second]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    BYOL(keras.Model([first, second], x, name="pair"))


@feature("weights that the loss doesn't reach: they stay, with a warning")
def _(folder):
    convs = [keras.layers.Conv2D(4, 3, name=name) for name in ("unreached", "last")]
    inputs = keras.Input((8, 8, 3))
    x = convs[1](keras.ops.stop_gradient(convs[0](inputs)))
    of = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    before = of.get_weights()
    with pytest.warns(
        UserWarning, match="no gradient reaches 2 trainable weights.* unreached/kernel"
    ):
        trained(of, eagerly=True)
    assert np.array_equal(before[0], of.get_weights()[0])
    assert not np.array_equal(before[2], of.get_weights()[2])


@feature("weights without names, as of Keras' guide and of ConvNeXt")
def _(folder):
    class Unnamed(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], 6))
            self.b = self.add_weight(shape=(6,))

        def call(self, x):
            return x @ self.w + self.b

    assert trained(encoder(Unnamed()), eagerly=True)["tau"]


@feature(
    "weights loaded into `model.encoder` before the first step: the target gets them too", long=True
)
def _(folder):
    byol = compiled(keras.optimizers.SGD(0.0))
    byol.encoder.set_weights([weight + 1.0 for weight in byol.encoder.get_weights()])
    byol.fit(pairs(), verbose=0)
    assert moved(byol) == 0.0


@feature("`compile`, then `load_weights`: step, rate and tau continue")
def _(folder):
    byol, other = (compiled("adam", run_eagerly=True) for _ in range(2))
    byol.fit(pairs(3), verbose=0)
    byol.save_weights(folder / "c.weights.h5")
    other.load_weights(folder / "c.weights.h5")
    assert int(other.optimizer.iterations) == 3


@feature("policies `mixed_bfloat16` and `mixed_float16`", long=True)
def _(folder):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    assert np.isfinite(compiled().fit(pairs(), verbose=0).history["loss"])


@feature("policies `bfloat16`, `float16`, `float64`")
def _(folder):
    keras.mixed_precision.set_global_policy("bfloat16")
    model()


@feature("views of two sizes, for an encoder that takes both", long=True)
def _(folder):
    inputs = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3)(inputs))
    trained(keras.Model(inputs, x), tf.data.Dataset.from_tensors((FIRST, SECOND[:, :6, :6])))


@feature(
    "`EarlyStopping`, `CSVLogger`, `LearningRateScheduler`, `BackupAndRestore` and the like",
    long=True,
)
def _(folder):
    watch = [
        keras.callbacks.EarlyStopping("loss", patience=3),
        keras.callbacks.CSVLogger(folder / "log.csv"),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2),
        keras.callbacks.BackupAndRestore(folder / "backup"),
    ]
    compiled().fit(pairs(2), callbacks=watch, verbose=0)
    assert "projection_std" in (folder / "log.csv").read_text()


@feature("`summary`: the target counts as not trainable")
def _(folder):
    lines = []
    byol = model()
    byol.summary(print_fn=lines.append)
    count = sum(variable.shape.num_elements() for variable in byol.trainable_variables)
    assert f" Trainable params: {count:,} " in "\n".join(lines)
    assert len({layer.name for layer in byol.layers}) == len(byol.layers)


@feature("`save`, `load_model`, `ModelCheckpoint()`: the whole model")
def _(folder):
    byol = compiled("adam", run_eagerly=True)
    byol.fit(pairs(), callbacks=[keras.callbacks.ModelCheckpoint(folder / "c.keras")], verbose=0)
    loaded = keras.models.load_model(folder / "c.keras")
    assert (int(loaded.optimizer.iterations), loaded.tau) == (1, byol.tau)
    np.testing.assert_equal(tiny.all_weights(loaded), tiny.all_weights(byol))


@feature("`clone_model`, pickle, `copy.deepcopy`")
def _(folder):
    byol = compiled()
    assert moved(keras.models.clone_model(byol)) == 0.0
    for same in (pickle.loads(pickle.dumps(byol)), copy.deepcopy(byol)):
        np.testing.assert_equal(tiny.all_weights(same), tiny.all_weights(byol))


@feature("`export`: the encoder, from normalised images")
def _(folder):
    byol = compiled()
    byol.export(folder / "exported", verbose=False)
    exported = tf.saved_model.load(str(folder / "exported"))
    np.testing.assert_allclose(
        exported.serve(tf.constant(FIRST)), byol(FIRST), rtol=1e-5, atol=1e-6
    )


@feature("an encoder with a `Lambda`, which `load_model(..., safe_mode=False)` loads")
def _(folder):
    byol = tiny.wrapped(encoder(keras.layers.Lambda(lambda x: x / 2), keras.layers.Conv2D(6, 3)))
    byol.save(folder / "byol.keras")
    loaded = keras.models.load_model(folder / "byol.keras", safe_mode=False)
    np.testing.assert_allclose(loaded(FIRST), byol(FIRST), rtol=1e-5, atol=1e-6)


class Wired(keras.Model):
    """A subclassed encoder that Keras can't copy."""

    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv2D(7, 3)
        self(FIRST)

    def call(self, images):
        return tf.reduce_mean(self.conv(images), (1, 2))

    def get_config(self):
        raise NotImplementedError


@feature("a subclassed encoder without `get_config`")
def _(folder):
    tiny.wrapped(Wired())


@feature("such an encoder with `target_encoder`, except for `save`")
def _(folder):
    byol = tiny.wrapped(Wired(), target_encoder=Wired(), tau=0.9)
    byol.compile("sgd", run_eagerly=True, jit_compile=False)
    byol.fit(pairs(), verbose=0)
    assert moved(byol) > 0.0
    with pytest.raises(NotImplementedError):
        byol.save(folder / "byol.keras")


@feature("`ModelCheckpoint`, `save`, `load_model`, `clone_model`", long=True)
def _(folder):
    byol, path = compiled(), folder / "model.keras"
    byol.fit(pairs(), callbacks=[keras.callbacks.ModelCheckpoint(path)], verbose=0)
    loaded = keras.models.load_model(path)
    assert int(loaded.optimizer.iterations) == 1
    for one, other in zip(tiny.all_weights(byol), tiny.all_weights(loaded), strict=True):
        np.testing.assert_array_equal(one, other)
    assert keras.models.clone_model(byol).tau == byol.tau


@feature("a batch that the replicas don't divide", replicas=True)
def _(strategy):
    with strategy.scope():
        byol = compiled()
    byol.fit(partial(9, 8), verbose=0)


@feature("clipping on several replicas", replicas=True)
def _(strategy):
    with strategy.scope():
        compiled(keras.optimizers.SGD(0.1, clipnorm=1.0))


@feature("an encoder created outside `strategy.scope()`", replicas=True)
def _(strategy):
    of = tiny.encoder()
    with strategy.scope():
        tiny.wrapped(of).compile("sgd")


@feature("`fit` in the scope of a strategy that the model wasn't created in", replicas=True)
def _(strategy):
    byol = compiled(options={"name": "byol"})
    with strategy.scope():
        byol.fit(pairs(), verbose=0)


@feature(
    "saved on one device and loaded on several: its `BatchNorm` is synchronised", replicas=True
)
def _(strategy):
    with tempfile.TemporaryDirectory() as folder:
        tiny.encoder().save(f"{folder}/encoder.keras")
        with strategy.scope():
            loaded = keras.models.load_model(f"{folder}/encoder.keras")
        assert loaded.get_layer("bn").synchronized
        loaded.save(f"{folder}/encoder.keras")
        assert not keras.models.load_model(f"{folder}/encoder.keras").get_layer("bn").synchronized


@feature("`BatchNormalization()` on several replicas: a warning", replicas=True)
def _(strategy):
    with strategy.scope(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        of = encoder(keras.layers.Conv2D(6, 3), keras.layers.BatchNormalization(name="local"))
        tiny.wrapped(of).compile("sgd", jit_compile=False)
    assert ["local: batch statistics are those of each replica" in str(w.message) for w in caught]


@feature('`TargetUpdate(placement="batch_end")` on several replicas', replicas=True)
def _(strategy):
    with strategy.scope():
        byol = compiled(tau=None)
    byol.fit(pairs(2), callbacks=[TargetUpdate(0.0, "batch_end")], verbose=0)
    assert moved(byol) == 0.0


def rows() -> dict[str, str]:
    """feature -> verdict of the table in the page."""
    section = PAGE.read_text(encoding="utf-8").split("## Keras features")[1].split("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    return {name.strip(): verdict.strip() for name, verdict in cells[1:]}


def check(verdict: str, sentence: str | None) -> None:
    """Asserts what a feature did: None, or the sentence that it raised."""
    if verdict == "works":
        assert sentence is None
    else:
        expected = re.fullmatch(r"refused: `(.*)`", verdict)
        assert expected, verdict
        assert expected[1] in str(sentence)


def sentence_of(function: Callable, argument: object) -> str | None:
    try:
        function(argument)
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def test_table_has_a_row_for_each_feature():
    assert list(rows()) == [*FEATURES, *ON_REPLICAS]


def rows_marked() -> list:
    return [pytest.param(row, marks=pytest.mark.long if row in LONG else []) for row in FEATURES]


@pytest.mark.parametrize("row", rows_marked())
def test_feature_does_what_its_row_says(row, tmp_path):
    check(rows()[row], sentence_of(FEATURES[row], tmp_path))


@pytest.mark.parametrize("row", ON_REPLICAS)
def test_feature_on_replicas_does_what_its_row_says(row):
    check(rows()[row], sentence_of(ON_REPLICAS[row], replicas(2)))
