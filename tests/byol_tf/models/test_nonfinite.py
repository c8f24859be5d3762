"""A step that isn't finite changes nothing, whatever its cause and however the step is run."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf import BYOL
from byol_tf.errors import NOT_FINITE, NotFiniteError
from byol_tf.models.ema import TargetUpdate, constant_tau
from byol_tf.models.nonfinite import CHECKS, MIN_LOSS_SCALE, total, total_of_squares
from byol_tf.models.trainer import MAX_SKIPPED_IN_ROW, NONFINITE
from tests.helpers import tiny


def state(model: BYOL) -> dict[str, np.ndarray]:
    """All that a step may change: both networks, statistics included, and the optimizer."""
    owners = [
        *model.networks.values(),
        model.target_encoder,
        model.target_projector,
        model.optimizer,
    ]
    return {
        f"{i}/{j} {v.path.partition('/')[2]}": v.numpy().copy()
        for i, owner in enumerate(owners)
        for j, v in enumerate(owner.variables)
    }


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> list[str]:
    return [name for name in before if before[name].tobytes() != after[name].tobytes()]


def built(
    on_nonfinite: str = "skip",
    steps: int = 1,
    jit: bool = False,
    run_eagerly: bool = False,
    **options,
) -> BYOL:
    model = tiny.model(on_nonfinite=on_nonfinite, **options)
    model.compile(
        keras.optimizers.Adam(0.01),
        steps_per_execution=steps,
        jit_compile=jit,
        run_eagerly=run_eagerly,
    )
    return model


def poisoned(batches: int, at: dict[int, float], batch_size: int = 8) -> tf.data.Dataset:
    """The batches of `tiny`, in which one pixel of the batches `at` (counted from 0) has another
    value."""
    first, second = tiny.views(batches, batch_size)
    for batch, value in at.items():
        first[batch, -1, 3, 3, 1] = value
    return tf.data.Dataset.from_tensor_slices((first, second))


def fit(model: BYOL, data: tf.data.Dataset, callbacks=()) -> dict:
    return model.fit(
        data, callbacks=[TargetUpdate(constant_tau(0.9)), *callbacks], verbose=0, shuffle=False
    ).history


class TestTotals:
    @pytest.mark.parametrize("total", [total, total_of_squares])
    def test_one_nonfinite_value_makes_the_total_nonfinite(self, total):
        sound = [tf.random.normal((40, 50)), tf.random.normal((7,))]
        assert np.isfinite(total(sound))
        for value in (np.nan, np.inf, -np.inf):
            bad = sound[0].numpy()
            bad[17, 3] = value
            assert not np.isfinite(total([tf.constant(bad), sound[1]]))

    def test_integers_are_ignored(self):
        assert total([tf.constant([1, 2])]) == 0.0

    def test_opposite_infinities_do_not_cancel(self):
        assert not np.isfinite(total([tf.constant([np.inf, -np.inf])]))


class Recorder(keras.callbacks.Callback):
    """The state before the first step and after each, in one `fit`; `plant(step, model)` may change
    something between two."""

    def __init__(self, plant=lambda step, model: None):
        super().__init__()
        self.plant, self.before, self.after = plant, [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.plant(batch, self.model)
        self.before.append(state(self.model))

    def on_train_batch_end(self, batch, logs=None):
        self.after.append((state(self.model), self.model.last_call, dict(logs)))


class TestSkip:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            pytest.param({"gradient_accumulation_steps": 2}, marks=pytest.mark.long),
            pytest.param({"jit": True}, marks=pytest.mark.long),
            pytest.param({"predictor": False}, marks=pytest.mark.long),
        ],
    )
    def test_nonfinite_batch_changes_no_variable(self, options):
        model, recorder = built(**options), Recorder()
        fit(model, poisoned(4, {0: np.inf, 2: np.nan}), [recorder])
        moved = [
            changed(before, after)
            for before, (after, *_) in zip(recorder.before, recorder.after, strict=True)
        ]
        assert moved[0] == moved[2] == []
        assert len(moved[1]) > 20
        assert len(moved[3]) > 20
        assert all("views" in call.failures[0] for _, call, _ in recorder.after[::2])
        assert [logs["tau"] for *_, logs in recorder.after] == pytest.approx([1.0, 0.9, 1.0, 0.9])
        assert (model.skipped_steps, model.steps_seen) == (2, 4)

    def test_without_rollback_weights_become_nonfinite(self, monkeypatch):
        """So the test above can fail; and weights that have been hit don't go unnoticed."""
        monkeypatch.setattr(
            "byol_tf.models.nonfinite.apply_or_rollback",
            lambda finite, apply, rollback: apply[0](apply[1]),
        )
        model = built(run_eagerly=True)
        with pytest.raises(
            NotFiniteError, match=r"step 1: not finite: views.* weight, target network"
        ):
            fit(model, poisoned(1, {0: np.nan}))
        assert not all(np.isfinite(value).all() for value in state(model).values())

    def test_run_with_skipped_step_equals_run_without_its_batch(self):
        """In the middle of a call of several steps: the other steps, their running means too, are
        those of a run without that batch."""
        first, second = tiny.views(5, 8)
        bad = first.copy()
        bad[2] = np.nan
        whole, without = built(steps=5), built(steps=4)
        kept = [0, 1, 3, 4]
        a = fit(whole, tf.data.Dataset.from_tensor_slices((bad, second)))
        b = fit(without, tf.data.Dataset.from_tensor_slices((first[kept], second[kept])))
        assert changed(state(whole), state(without)) == []
        assert [bool(names) for names in whole.last_call.failures] == [
            False,
            False,
            True,
            False,
            False,
        ]
        assert {name: a[name] for name in ("loss", "tau", "projection_std")} == {
            name: b[name] for name in ("loss", "tau", "projection_std")
        }

    def test_run_ends_after_twenty_skipped_steps_in_a_row(self):
        model = built(run_eagerly=True)
        bad = dict.fromkeys(range(3, 3 + MAX_SKIPPED_IN_ROW), np.nan)
        with pytest.raises(
            NotFiniteError,
            match=rf"step {3 + MAX_SKIPPED_IN_ROW}: not finite: views.*; {MAX_SKIPPED_IN_ROW} steps were skipped",
        ) as raised:
            fit(model, poisoned(MAX_SKIPPED_IN_ROW + 6, bad))
        assert raised.value.exit_code == NOT_FINITE
        assert (model.skipped_steps, int(model.optimizer.iterations.numpy())) == (
            MAX_SKIPPED_IN_ROW,
            3,
        )

    @pytest.mark.long
    def test_skipped_steps_that_alternate_do_not_end_the_run(self):
        model = built(steps=4)
        fit(model, poisoned(48, dict.fromkeys(range(0, 48, 2), np.inf)))
        assert (model.skipped_steps, int(model.optimizer.iterations.numpy())) == (24, 24)

    @pytest.mark.parametrize(
        ("part", "steps"),
        [
            ("predictor", 1),
            ("target_encoder", 3),
            *(
                pytest.param(part, 1, marks=pytest.mark.long)
                for part in ("encoder", "target_projector")
            ),
        ],
    )
    def test_nonfinite_weights_end_the_run(self, part, steps):
        model = built(steps=steps, run_eagerly=steps == 1)

        def plant(step, model):
            if step == 3:
                variable = getattr(model, part).trainable_variables[0]
                variable.assign(tf.fill(variable.shape, np.inf))

        recorder, name = Recorder(plant), "target network" if "target" in part else "weight"
        with pytest.raises(NotFiniteError, match=rf"step 4: not finite: .*{name}") as raised:
            fit(model, poisoned(6, {}), [recorder])
        assert (raised.value.exit_code, raised.value.change) == (NOT_FINITE, None)
        assert len(recorder.after) == 3 // steps  # so that none saves what it left


class TestStop:
    @pytest.mark.parametrize(
        ("steps", "at"),
        [
            (3, 4),
            *(
                pytest.param(steps, at, marks=pytest.mark.long)
                for steps in (1, 3, 6)
                for at in (0, 2, 5)
            ),
        ],
    )
    def test_no_callback_sees_the_step_and_none_follows(self, steps, at):
        model, seen = built("stop", steps), []
        listener = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(batch)
        )
        with pytest.raises(
            NotFiniteError,
            match=rf'step {at + 1}: not finite: views.*on_nonfinite="skip" skips such',
        ) as raised:
            fit(model, poisoned(6, {at: np.nan}), [listener])
        assert raised.value.change == "monitor.on_nonfinite=skip"
        assert int(model.optimizer.iterations.numpy()) == at
        assert seen == [batch for batch in range(steps - 1, at, steps)]
        assert all(np.isfinite(value).all() for value in state(model).values())

    def test_skipping_after_a_stop_takes_every_batch(self):
        model = built("stop", 4)
        with pytest.raises(NotFiniteError):
            fit(model, poisoned(8, {1: np.nan}))
        model.on_nonfinite = "skip"
        before = int(model.optimizer.iterations.numpy())
        fit(model, poisoned(8, {1: np.nan, 5: np.nan}))
        assert int(model.optimizer.iterations.numpy()) == before + 6

    def test_unknown_policy_is_an_error(self):
        with pytest.raises(
            ValueError, match='on_nonfinite: expected "stop" or "skip"; received \'go\''
        ):
            tiny.model(on_nonfinite="go")


FACTOR = tf.Variable(1.0)
"""Of gradients that pass `BadGradient`. No variable of the layer, or it would be a statistic of the
model's."""


class BadGradient(keras.layers.Layer):
    """Gives what it is given; its gradient is multiplied by `FACTOR`."""

    def call(self, inputs):
        @tf.custom_gradient
        def passed(x, factor):
            return tf.identity(x), lambda upstream: (
                upstream * tf.cast(factor, upstream.dtype),
                None,
            )

        return passed(inputs, tf.stop_gradient(FACTOR))


def with_bad_gradient(run_eagerly: bool = False, **options) -> BYOL:
    FACTOR.assign(1.0)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((tiny.SIZE, tiny.SIZE, 3))
    x = keras.layers.Conv2D(tiny.FEATURES, 3, strides=2, use_bias=False)(inputs)
    encoder = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(BadGradient()(x)))
    model = tiny.wrapped(encoder, **options)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False, run_eagerly=run_eagerly)
    return model


class TestGradient:
    def test_nonfinite_gradient_alone_skips_the_step(self):
        model = with_bad_gradient(on_nonfinite="skip")
        values = [1.0, np.nan, np.inf, 1e30, 1.0]
        recorder = Recorder(lambda step, _: FACTOR.assign(values[step]))
        fit(model, poisoned(5, {}), [recorder])
        assert [call.failures[0] for _, call, _ in recorder.after] == [(), *3 * [("gradient",)], ()]
        moved = [
            bool(changed(before, after))
            for before, (after, *_) in zip(recorder.before, recorder.after, strict=True)
        ]
        assert moved == [True, False, False, False, True]


class TestFloat16:
    @pytest.fixture(autouse=True)
    def float16(self):
        keras.mixed_precision.set_global_policy("mixed_float16")
        yield
        keras.mixed_precision.set_global_policy("float32")

    def test_search_for_loss_scale_is_no_failure(self):
        model = built("skip")
        recorder = Recorder(
            lambda step, model: step == 1 and model.optimizer.dynamic_scale.assign(2.0**30)
        )
        fit(model, poisoned(3, {2: np.nan}), [recorder])
        searched, bad = (changed(recorder.before[step], recorder.after[step][0]) for step in (1, 2))
        assert [bool(call.failures[0]) for _, call, _ in recorder.after] == [False, False, True]
        assert float(model.optimizer.dynamic_scale.numpy()) == 2.0**29
        assert [name for name in searched if "scale" in name]
        assert not [
            name
            for name in searched
            if "kernel" in name or "gamma" in name or "beta" in name or "bias" in name
        ]
        assert bad == []
        assert model.skipped_steps == 1

    @pytest.mark.parametrize(
        "value",
        [np.nan, *(pytest.param(value, marks=pytest.mark.long) for value in (np.inf, 0.0, -1.0))],
    )
    def test_invalid_loss_scale_ends_the_run(self, value):
        """With "skip" too: each later step would be left out for it, and it would be saved."""
        model = built("skip", run_eagerly=True)
        recorder = Recorder(
            lambda step, model: step == 1 and model.optimizer.dynamic_scale.assign(value)
        )
        with pytest.raises(NotFiniteError, match=r"step 2: not finite: .*loss scale"):
            fit(model, poisoned(2, {}), [recorder])

    def test_gradient_overflow_at_the_smallest_scale_is_a_failure(self):
        model = with_bad_gradient(run_eagerly=True, on_nonfinite="stop")
        FACTOR.assign(np.inf)
        model.optimizer.dynamic_scale.assign(2 * MIN_LOSS_SCALE)
        with pytest.raises(NotFiniteError, match="step 2: not finite: gradient"):
            fit(model, poisoned(2, {}))


def test_logs_hold_a_flag_for_each_check():
    logs = built(tau=0.9).train_step(tuple(tf.constant(view[0]) for view in tiny.views(1, 8)))
    assert [name for name in logs if name.startswith(NONFINITE)] == [NONFINITE + x for x in CHECKS]
