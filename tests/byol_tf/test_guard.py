"""A step whose numbers aren't finite changes nothing, whatever they come from and however the step is run."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf import BYOL
from byol_tf.guard import TROUBLES, total, total_of_squares
from byol_tf.loop import MOST_SKIPPED
from byol_tf.stops import NOT_FINITE, NotFiniteError
from byol_tf.target import TargetUpdate, constant_tau
from tests.byol_tf import tiny


def state(model: BYOL) -> dict[str, np.ndarray]:
    """All that a step may change: both networks, statistics included, and the optimizer."""
    parts = [*model.parts.values(), model.target_encoder, model.target_projector, model.optimizer]
    return {f"{index} {v.path}": v.numpy().copy() for index, part in enumerate(parts) for v in part.variables}


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> list[str]:
    return [name for name in before if before[name].tobytes() != after[name].tobytes()]


def built(on_nonfinite: str = "skip", steps: int = 1, jit: bool = False, **options) -> BYOL:
    model = tiny.model(on_nonfinite=on_nonfinite, **options)
    model.compile(keras.optimizers.Adam(0.01), steps_per_execution=steps, jit_compile=jit)
    model.optimizer.build(model.trainable_variables)
    return model


def poisoned(batches: int, at: dict[int, float], batch_size: int = 8) -> tf.data.Dataset:
    """The batches of `tiny`, in which one pixel of the batches `at` (counted from 0) has another value."""
    first, second = tiny.views(batches, batch_size)
    for batch, value in at.items():
        first[batch, -1, 3, 3, 1] = value
    return tf.data.Dataset.from_tensor_slices((first, second))


def fit(model: BYOL, data: tf.data.Dataset, callbacks=()) -> dict:
    return model.fit(data, callbacks=[TargetUpdate(constant_tau(0.9)), *callbacks], verbose=0, shuffle=False).history


class TestTotals:
    @pytest.mark.parametrize("total", [total, total_of_squares])
    def test_one_value_among_many_is_enough(self, total):
        sound = [tf.random.normal((40, 50)), tf.random.normal((7,))]
        assert np.isfinite(total(sound))
        for value in (np.nan, np.inf, -np.inf):
            bad = sound[0].numpy()
            bad[17, 3] = value
            assert not np.isfinite(total([tf.constant(bad), sound[1]]))

    def test_integers_have_nothing_to_say(self):
        assert total([tf.constant([1, 2])]) == 0.0

    def test_opposite_infinities_do_not_cancel(self):
        assert not np.isfinite(total([tf.constant([np.inf, -np.inf])]))


class TestSkip:
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("options", [{}, {"accumulation": 2}, {"jit": True}, {"target": "ema", "predictor": False}])
    def test_a_bad_batch_leaves_all_as_it_was(self, value, options):
        model = built(**options)
        fit(model, poisoned(2, {}))
        before = state(model)
        history = fit(model, poisoned(1, {0: value}))
        assert changed(before, state(model)) == []
        assert "views" in model.last_call.troubles[0]
        assert (model.skipped_steps, model.steps_seen) == (1, 3)
        assert history["tau"] == [1.0]
        fit(model, poisoned(1, {}))
        assert len(changed(before, state(model))) > 20

    def test_without_the_guard_it_would_not_be(self, monkeypatch):
        """So the test above can fail."""
        monkeypatch.setattr("byol_tf.guard.either", lambda sound, step, undo: step[0](step[1]))
        model = built()
        before = state(model)
        fit(model, poisoned(1, {0: np.nan}))
        after = state(model)
        assert not all(np.isfinite(after[name]).all() for name in changed(before, after))

    def test_what_was_skipped_is_as_if_it_had_not_been_there(self):
        """In the middle of a call of several steps: the other steps, their running means too, are those of a run without that batch."""
        first, second = tiny.views(5, 8)
        bad = first.copy()
        bad[2] = np.nan
        whole, without = built(steps=5), built(steps=4)
        kept = [0, 1, 3, 4]
        a = fit(whole, tf.data.Dataset.from_tensor_slices((bad, second)))
        b = fit(without, tf.data.Dataset.from_tensor_slices((first[kept], second[kept])))
        assert changed(state(whole), state(without)) == []
        assert [bool(names) for names in whole.last_call.troubles] == [False, False, True, False, False]
        assert {name: a[name] for name in ("loss", "tau", "projection_std")} == {
            name: b[name] for name in ("loss", "tau", "projection_std")
        }

    def test_too_many_in_a_row_end_it(self):
        model = built()
        bad = dict.fromkeys(range(3, 3 + MOST_SKIPPED), np.nan)
        with pytest.raises(
            NotFiniteError, match=f"step {3 + MOST_SKIPPED}: not finite: views.*; {MOST_SKIPPED} steps were skipped"
        ) as raised:
            fit(model, poisoned(MOST_SKIPPED + 6, bad))
        assert raised.value.exit_code == NOT_FINITE
        assert (model.skipped_steps, int(model.optimizer.iterations.numpy())) == (MOST_SKIPPED, 3)

    def test_many_that_are_not_in_a_row_do_not(self):
        model = built(steps=4)
        fit(model, poisoned(48, dict.fromkeys(range(0, 48, 2), np.inf)))
        assert (model.skipped_steps, int(model.optimizer.iterations.numpy())) == (24, 24)

    @pytest.mark.parametrize("part", ["encoder", "projector", "predictor", "target_encoder", "target_projector"])
    @pytest.mark.parametrize("steps", [1, 3])
    def test_weights_that_are_not_finite_can_not_be_skipped(self, part, steps):
        model = built(steps=steps)
        fit(model, poisoned(3, {}))
        variable = getattr(model, part).trainable_variables[0]
        variable.assign(tf.fill(variable.shape, np.inf))
        name = "target network" if part.startswith("target") else "weight"
        with pytest.raises(NotFiniteError, match=f"step 4: not finite: .*{name}"):
            fit(model, poisoned(3, {}))


class TestStop:
    @pytest.mark.parametrize("steps", [1, 3, 6])
    @pytest.mark.parametrize("at", [0, 2, 5])
    def test_no_callback_sees_the_step_and_none_is_made_after_it(self, steps, at):
        model, seen = built("stop", steps), []
        listener = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
        with pytest.raises(NotFiniteError, match=f"step {at + 1}: not finite: views"):
            fit(model, poisoned(6, {at: np.nan}), [listener])
        assert int(model.optimizer.iterations.numpy()) == at
        assert seen == [batch for batch in range(steps - 1, at, steps)]
        assert all(np.isfinite(value).all() for value in state(model).values())

    def test_another_word_is_an_error(self):
        with pytest.raises(ValueError, match='on_nonfinite: expected "stop" or "skip"; received \'go\''):
            tiny.model(on_nonfinite="go")


class BadGradient(keras.layers.Layer):
    """Gives what it is given; its gradient is multiplied by `factor`."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones", trainable=False, name="factor")

    def call(self, inputs):
        factor = tf.convert_to_tensor(self.factor)

        @tf.custom_gradient
        def passed(x):
            return tf.identity(x), lambda upstream: upstream * tf.cast(factor, upstream.dtype)

        return passed(inputs)


def with_bad_gradient(precision: str = "float32", **options) -> tuple[BYOL, BadGradient]:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((tiny.SIZE, tiny.SIZE, 3))
    x = keras.layers.Conv2D(tiny.FEATURES, 3, strides=2, use_bias=False)(inputs)
    layer = BadGradient()
    encoder = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(layer(x)))
    model = tiny.wrapped(encoder, **options)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model, layer


class TestGradient:
    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
    def test_it_alone_is_noticed(self, value):
        model, layer = with_bad_gradient(on_nonfinite="skip")
        fit(model, poisoned(1, {}))
        layer.factor.assign(value)
        before = state(model)
        fit(model, poisoned(1, {}))
        assert model.last_call.troubles == (("gradient",),)
        assert changed(before, state(model)) == []


class TestFloat16:
    @pytest.fixture(autouse=True)
    def float16(self):
        keras.mixed_precision.set_global_policy("mixed_float16")
        yield
        keras.mixed_precision.set_global_policy("float32")

    def test_a_scale_that_is_too_large_is_no_trouble_and_moves_nothing_but_itself(self):
        model = built("stop")
        fit(model, poisoned(1, {}))
        model.optimizer.dynamic_scale.assign(2.0**30)
        before = state(model)
        fit(model, poisoned(1, {}))
        moved = changed(before, state(model))
        assert model.last_call.troubles == ((),)
        assert float(model.optimizer.dynamic_scale.numpy()) == 2.0**29
        assert not [name for name in moved if "kernel" in name or "gamma" in name or "beta" in name or "bias" in name]
        assert [name for name in moved if "scale" in name]

    @pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
    def test_a_scale_that_is_none_is(self, value):
        model = built("stop")
        fit(model, poisoned(1, {}))
        model.optimizer.dynamic_scale.assign(value)
        with pytest.raises(NotFiniteError, match="step 2: not finite: .*loss scale"):
            fit(model, poisoned(1, {}))

    def test_gradients_that_overflow_without_a_scale_are(self):
        model, layer = with_bad_gradient(on_nonfinite="stop")
        layer.factor.assign(np.inf)
        model.optimizer.dynamic_scale.assign(2.0)
        fit(model, poisoned(1, {}))
        with pytest.raises(NotFiniteError, match="step 2: not finite: gradient"):
            fit(model, poisoned(1, {}))

    def test_a_bad_batch_leaves_the_scale(self):
        model = built("skip")
        fit(model, poisoned(1, {}))
        before = state(model)
        fit(model, poisoned(1, {0: np.nan}))
        assert model.skipped_steps == 1
        assert changed(before, state(model)) == []


def test_flags_have_their_names():
    model = built("skip")
    fit(model, poisoned(1, {}))
    assert model.reported_step(tuple(tf.constant(view[0]) for view in tiny.views(1, 8)))[1].shape == (1 + len(TROUBLES),)
