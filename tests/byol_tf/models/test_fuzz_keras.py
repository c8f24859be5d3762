"""Random encoders with random Keras features train as in plain Keras, or are refused in a sentence.

`python -m tests.byol_tf.models.test_fuzz_keras 0 200` prints what happened to each of 200 cases.
"""

import collections
import copy
import random
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import byol_tf
from byol_tf import LARS, Objective, TargetUpdate, compat, constant_tau, cosine_tau, mlp_head
from byol_tf.models.ema import match_trainable
from byol_tf.models.optimizers import Lamb

registered = keras.saving.register_keras_serializable("fuzz")
SIZE, BATCH, IMAGES, EPOCHS, TAU, RATE = 8, 6, 18, 2, 0.7, 1e-2


@registered
class Linear(keras.layers.Layer):
    """The first layer of Keras' guide: weights without a name."""

    def __init__(self, units: int = 8, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), initializer="glorot_uniform")
        self.b = self.add_weight(shape=(self.units,), initializer="zeros")

    def call(self, x):
        return keras.ops.matmul(x, self.w) + self.b

    def get_config(self):
        return super().get_config() | {"units": self.units}


@registered
class AddsLoss(keras.layers.Layer):
    def call(self, x):
        self.add_loss(1e-3 * keras.ops.mean(keras.ops.square(x)))
        return x


@registered
class Positions(keras.layers.Layer):
    """Positions by an embedding, whose gradient is sparse."""

    def build(self, shape):
        self.embedding = keras.layers.Embedding(shape[1], shape[-1])
        self.embedding.build(None)

    def call(self, x):
        return x + self.embedding(keras.ops.arange(x.shape[1]))[None, :, None]


@registered
class Subclassed(keras.Model):
    def __init__(self, width: int = 8, unused: bool = False, losses: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.options = {"width": width, "unused": unused, "losses": losses}
        self.conv = keras.layers.Conv2D(width, 3, strides=2)
        self.bn = keras.layers.BatchNormalization()
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.head = keras.layers.Dense(3) if unused else None

    def call(self, images, training=False):
        x = self.pool(keras.ops.relu(self.bn(self.conv(images), training=training)))
        if self.head is not None:
            self.head(x)
        if self.options["losses"]:
            self.add_loss(1e-3 * keras.ops.mean(x))
        return x

    def get_config(self):
        return super().get_config() | self.options


@registered
class Watched(byol_tf.BYOL):
    """A subclass with a metric and a log of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps = keras.metrics.Sum("steps")

    def train_step(self, data):
        self.steps.update_state(1.0)
        return super().train_step(data) | {"brightness": tf.reduce_mean(data[0])}


class OwnLoss(byol_tf.BYOL):
    def compute_loss(self, *args, **kwargs):
        return 0.0


class Plain(keras.Model):
    """The online networks of a BYOL model as one that Keras' own step trains.

    It takes the views, and the target's projections where there is a target network.
    """

    def __init__(self, byol: byol_tf.BYOL):
        super().__init__()
        self.parts = list(byol.networks.values())
        self.objective, self.stops = byol.objective, byol.target == "online"
        self.built = True

    def call(self, inputs, training=False):
        views = inputs[: self.objective.view_count]
        targets = dict(zip(self.objective.target_views, inputs[len(views) :], strict=False))
        predicting = self.objective.predicting_views if targets else range(len(views))
        outputs = {view: views[view] for view in predicting}
        for part in self.parts[:2]:
            outputs = {view: part(x, training=training) for view, x in outputs.items()}
        if not targets:
            targets = {
                view: tf.stop_gradient(z) if self.stops else z for view, z in outputs.items()
            }
        outputs = {view: outputs[view] for view in self.objective.predicting_views}
        for part in self.parts[2:]:
            outputs = {view: part(x, training=training) for view, x in outputs.items()}
        self.add_loss(self.objective(outputs, targets))
        return views[0]


def functional(draw: random.Random) -> keras.Model:
    layers = keras.layers
    regularizer = draw.choice(
        [None, None, keras.regularizers.L2(1e-3), keras.regularizers.L1(1e-3)]
    )
    activity = draw.choice([None, None, None, keras.regularizers.L2(1e-3)])
    shared = layers.Conv2D(8, 1, kernel_regularizer=regularizer)
    inputs = x = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(
        8,
        3,
        padding="same",
        kernel_regularizer=regularizer,
        activity_regularizer=activity,
        kernel_constraint=draw.choice([None, None, "max_norm"]),
    )(x)
    pieces = {
        "batch": lambda x: layers.BatchNormalization()(x),
        "layer": lambda x: layers.LayerNormalization()(x),
        "group": lambda x: layers.GroupNormalization(4)(x),
        "depthwise": lambda x: layers.DepthwiseConv2D(3)(x),
        "separable": lambda x: layers.SeparableConv2D(8, 3, padding="same")(x),
        "dropout": lambda x: layers.Dropout(0.2)(x),
        "spatial": lambda x: layers.SpatialDropout2D(0.2)(x),
        "operators": lambda x: x * 2.0 - 1.0,
        "relu": lambda x: keras.ops.relu(x),
        "shared": lambda x: shared(shared(x)),
        "residual": lambda x: x + layers.Conv2D(8, 3, padding="same", activation="relu")(x),
        "nested": lambda x: keras.Sequential([keras.Input(x.shape[1:]), layers.Conv2D(8, 1)])(x),
        "unnamed": lambda x: Linear(8)(x),
        "losses": lambda x: AddsLoss()(x),
        "positions": lambda x: Positions()(x),
        "stopped": lambda x: keras.ops.stop_gradient(x),
        "lambda": lambda x: layers.Lambda(lambda t: t / 2.0)(x),
        "noise": lambda x: layers.GaussianNoise(0.1)(x),
    }
    for name in draw.sample(sorted(pieces), draw.randint(1, 4)):
        x = pieces[name](x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    ends = [
        layers.GlobalAveragePooling2D(),
        layers.GlobalMaxPooling2D(),
        keras.Sequential([layers.Flatten(), layers.Dense(8)]),
    ]
    return keras.Model(inputs, draw.choice(ends)(x))


def subclassed(draw: random.Random) -> keras.Model:
    model = Subclassed(draw.choice([4, 8]), draw.random() < 0.4, draw.random() < 0.4)
    model(np.zeros((1, SIZE, SIZE, 3), np.float32))
    return model


def optimizer(draw: random.Random, rate) -> keras.optimizers.Optimizer | str:
    makers = [
        lambda: "adam",
        lambda: keras.optimizers.SGD(rate, momentum=0.9),
        lambda: keras.optimizers.AdamW(rate, weight_decay=1e-3),
        lambda: keras.optimizers.Lion(rate),
        lambda: keras.optimizers.RMSprop(rate),
        lambda: keras.optimizers.Adafactor(rate),
        lambda: keras.optimizers.Nadam(rate),
        lambda: keras.optimizers.Ftrl(rate),
        lambda: LARS(rate),
        lambda: Lamb(rate),
        lambda: keras.optimizers.SGD(rate, clipnorm=1.0),
        lambda: keras.optimizers.Adam(rate, global_clipnorm=1.0),
        lambda: keras.optimizers.Adam(rate, loss_scale_factor=128.0),
        lambda: keras.optimizers.SGD(rate, use_ema=True, ema_overwrite_frequency=2),
        lambda: keras.optimizers.SGD(rate, gradient_accumulation_steps=2),
    ]
    return draw.choice(makers)()


def callbacks(draw: random.Random, folder: str, rate) -> list[keras.callbacks.Callback]:
    known = keras.callbacks
    makers = [
        lambda: known.EarlyStopping("loss", patience=5, restore_best_weights=True),
        lambda: known.CSVLogger(f"{folder}/log.csv"),
        lambda: known.TerminateOnNaN(),
        lambda: (
            known.LearningRateScheduler(lambda epoch, now: now * 0.9)
            if rate == RATE  # Keras can't set a schedule's
            else known.ProgbarLogger()
        ),
        lambda: known.BackupAndRestore(f"{folder}/backup"),
        lambda: known.LambdaCallback(on_epoch_end=lambda epoch, logs: logs["loss"]),
        lambda: known.ModelCheckpoint(f"{folder}/last.weights.h5", save_weights_only=True),
    ]
    return [make() for make in draw.sample(makers, draw.choice([0, 0, 1, 2]))]


def arrays(count: int = IMAGES) -> list[np.ndarray]:
    values = np.random.default_rng(0)
    return [values.normal(size=(count, SIZE, SIZE, 3)).astype(np.float32) for _ in range(4)]


def data(draw: random.Random, views: int) -> dict:
    """Arguments of `fit`: 3 batches, or 4 with a partial one."""
    count = IMAGES + draw.choice([0, 0, 0, 2])
    images = arrays(count)[:views]
    dataset = tf.data.Dataset.from_tensor_slices(tuple(images)).batch(BATCH)
    whole = tf.data.Dataset.from_tensor_slices(tuple(images)).batch(BATCH, drop_remainder=True)
    choices = [{"x": dataset}, {"x": whole}]
    if views == 2:
        choices.append({"x": images[0], "y": images[1], "batch_size": BATCH})
        choices.append(
            {"x": images[0], "y": images[1], "batch_size": BATCH, "validation_split": 0.3}
        )
    arguments = draw.choice(choices)
    if "validation_split" not in arguments and draw.random() < 0.3:
        arguments["validation_data"] = whole
    if draw.random() < 0.05:
        arguments = {"x": dataset.map(lambda *batch: batch[0])}  # images alone
    return arguments


def run(seed: int) -> str:
    """Trains one random model; returns `trained`, or the sentence that refused it.

    Raises:
        AssertionError: if it trained otherwise than it should.
        Exception: if it was refused otherwise than by byol_tf's own ValueError or TypeError.
    """
    draw = random.Random(seed)
    keras.utils.set_random_seed(seed)
    policy = draw.choice(["float32"] * 8 + ["mixed_bfloat16", "mixed_float16", "bfloat16"])
    keras.mixed_precision.set_global_policy(policy)
    encoder = (functional if draw.random() < 0.75 else subclassed)(draw)
    width = encoder(np.zeros((1, SIZE, SIZE, 3), np.float32)).shape[-1]
    normalization = draw.choice(["batch", "batch", "layer", "none", "group"])
    objective = draw.choice(
        [
            None,
            None,
            Objective(symmetrization="asymmetric"),
            Objective(symmetrization="asymmetric_2x"),
            Objective(negatives=1.0, temperature=0.5),
        ]
    )
    target = draw.choice(["ema"] * 4 + ["online", "online_with_gradient"])
    own_tau = (
        draw.choice([None, TAU, cosine_tau(TAU, 10), 1.0, 1.5]) if draw.random() < 0.7 else None
    )
    replaced = draw.random() < 0.4 and target == "ema"
    rate = draw.choice([RATE, keras.optimizers.schedules.ExponentialDecay(RATE, 10, 0.9)])
    frozen = draw.choice(["nothing"] * 5 + ["first", "encoder", "everything"])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            projection = draw.choice([16, 8])
            predictor = mlp_head(projection, 32, projection, "predictor")
            of_class = draw.choice([byol_tf.BYOL] * 9 + [Watched] * 5 + [OwnLoss])
            model = of_class(
                encoder,
                mlp_head(width, 32, projection, "projector", normalization=normalization),
                draw.choice([predictor, predictor, None]),
                objective,
                target,
                tau=own_tau if target == "ema" or draw.random() < 0.1 else None,
                gradient_accumulation_steps=draw.choice([1, 1, 1, 2, 3]),
                rematerialize=draw.random() < 0.1,
            )
            if frozen == "first":
                model.encoder.layers[1].trainable = False
            elif frozen == "encoder":
                model.encoder.trainable = False
            elif frozen == "everything":
                model.trainable = False
            arguments = data(draw, model.objective.view_count)
            steps = draw.choice([1, 1, 1, 2, 3])
            model.compile(
                optimizer(draw, rate),
                steps_per_execution=steps,
                run_eagerly=draw.random() < 0.05,
                jit_compile=draw.random() < 0.05,
            )
            if policy == "float32" and model.gradient_accumulation_steps == 1:
                compare_step(model)
            update = TargetUpdate(constant_tau(TAU), draw.choice(["step", "step", "batch_end"]))
            before = state(model)
            history = model.fit(
                **arguments,
                epochs=EPOCHS,
                callbacks=[*callbacks(draw, folder, rate), *([update] if replaced else [])],
                verbose=0,
            ).history
            check(model, before, history, replaced)
            if draw.random() < 0.3:
                compare_loaded(model, f"{folder}/model.keras")
            if draw.random() < 0.1:
                compare_exported(model, f"{folder}/exported")
            if frozen == "encoder":
                model.encoder.trainable = True
                model.compile("sgd")
                before = state(model)
                check(model, before, model.fit(**arguments, verbose=0).history, False)
            elif draw.random() < 0.2:
                model.fit(**arguments, verbose=0)
        except (ValueError, TypeError) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            own = Path(byol_tf.__file__).parent in Path(place.filename).parents
            if own and (place.line or "").startswith("raise "):
                return f"{type(error).__name__}: {error}"
            raise
    return "trained"


def state(model: byol_tf.BYOL) -> dict[str, list[np.ndarray]]:
    networks = {**model.networks, **{f"target_{k}": v for k, v in model.target_networks.items()}}
    return {name: [w.numpy().copy() for w in network.weights] for name, network in networks.items()}


def check(model: byol_tf.BYOL, before: dict, history: dict, replaced: bool) -> None:
    """Asserts that exactly what is trainable has moved, and the target as it should."""
    assert all(np.isfinite(values).all() for values in history.values()), history
    if isinstance(model, Watched):
        steps = set(history["steps"])  # of each epoch
        assert "brightness" in history and len(steps) == 1 and steps <= {2.0, 3.0, 4.0}, history
    trained = {id(variable) for variable in model.trainable_variables}
    moved = 0
    for name, network in model.networks.items():
        for weight, was in zip(network.weights, before[name], strict=True):
            change = np.abs(weight.numpy() - was).max()
            if id(weight) in trained:
                moved += change > 0.0
            elif "moving" not in weight.name:
                assert change == 0.0, weight.path
    assert moved > 0 or skipped(model, 2 * len(history["loss"]))
    if model.target == "ema":
        moves = replaced or (model.tau is not None and float(model.tau(0.0)) < 1.0)
        change = max(
            np.abs(weight.numpy() - was).max()
            for name, network in model.target_networks.items()
            for weight, was in zip(network.weights, before[f"target_{name}"], strict=True)
            if "moving" not in weight.name
        )
        assert (change > 0.0) == moves, (change, moves)


def skipped(model: byol_tf.BYOL, steps: int) -> bool:
    """Returns whether gradients overflowed float16 in at least so many steps since `compile`.

    Keras halves the scale of the loss at each of them, and changes no weight.
    """
    optimizer = model.optimizer
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return False
    return optimizer.initial_scale / float(optimizer.dynamic_scale) >= 2.0**steps


def has_random_layers(model: byol_tf.BYOL) -> bool:
    return any(map(compat.is_random, compat.all_layers(model)))


def compare_step(model: byol_tf.BYOL) -> None:
    """Asserts that a step of SGD is that of Keras' own step on the same networks.

    Random layers are left out, as they draw other numbers in another order.
    """
    if not model.trainable_variables or has_random_layers(model):
        return
    views = arrays(BATCH)[: model.objective.view_count]
    ours, theirs = copy.deepcopy(model), copy.deepcopy(model)
    ours.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    batch = tf.data.Dataset.from_tensors(tuple(views))
    loss = ours.fit(batch, verbose=0).history["loss"][0]
    match_trainable(theirs.networks, theirs.target_networks)
    targets = theirs._target_projections([tf.constant(view) for view in views])
    plain = Plain(theirs)
    plain.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    expected = plain.train_on_batch([*views, *(z.numpy() for z in targets.values())])
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)
    for name, network in theirs.networks.items():
        for weight, other in zip(network.weights, ours.networks[name].weights, strict=True):
            np.testing.assert_allclose(
                other.numpy(), weight.numpy(), rtol=1e-4, atol=1e-5, err_msg=weight.path
            )


def compare_loaded(model: byol_tf.BYOL, path: str) -> None:
    """Asserts that a saved and loaded model is the same, and its next step too.

    Random layers draw other numbers then, as Keras doesn't save their state.
    """
    model.save(path)
    loaded = keras.models.load_model(path, safe_mode=False)
    assert type(loaded) is type(model)
    for one, other in zip(state(model).items(), state(loaded).items(), strict=True):
        np.testing.assert_equal(one, other)
    views = tuple(arrays(BATCH)[: model.objective.view_count])
    batch = tf.data.Dataset.from_tensors(views)
    one, other = (each.fit(batch, verbose=0).history for each in (model, loaded))
    assert one.keys() == other.keys()
    compared = {"learning_rate", "tau"} & one.keys()
    if not has_random_layers(model):
        compared.add("loss")
    for name in compared:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-3, err_msg=name)


def compare_exported(model: byol_tf.BYOL, path: str) -> None:
    """Asserts that the exported encoder gives the model's representations."""
    model.export(path, verbose=False)
    images = arrays(BATCH)[0]
    exported = tf.saved_model.load(path)
    given = exported.serve(tf.constant(images)).numpy()
    np.testing.assert_allclose(given, model(images).numpy(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_random_model_trains_or_is_refused_in_a_sentence(seed):
    run(seed)


@pytest.mark.long
def test_two_hundred_random_models_train_or_are_refused():
    results = [outcome(seed) for seed in range(200)]
    assert not [each for each in enumerate(results) if each[1].startswith("FAULT")]
    assert results.count("trained") > 70


def outcome(seed: int) -> str:
    """Returns what `run` does, or a line that begins with FAULT."""
    try:
        return run(seed)
    except Exception as error:
        return f"FAULT {type(error).__name__}: {str(error)[:300]}"
    finally:
        keras.mixed_precision.set_global_policy("float32")


def main(seeds: range) -> int:
    counts: collections.Counter[str] = collections.Counter()
    for seed in seeds:
        result = outcome(seed)
        counts[result if result == "trained" else result[:60]] += 1
        print(seed, result[:250], flush=True)
    for result, number in counts.most_common():
        print(number, result)
    return int(any(result.startswith("FAULT") for result in counts))


if __name__ == "__main__":
    sys.exit(main(range(*map(int, sys.argv[1:]))))
