"""The training loop that `fit` calls: several steps at once, on one replica or many, compiled where
that pays."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from byol_tf.devices import on_cpu
from byol_tf.errors import NotFiniteError
from byol_tf.models.nonfinite import BEFORE, LASTING, TROUBLES

MOST_SKIPPED = 20
"""Steps left out one after the other at which a run stops: a bad batch now and then isn't that, and
by then nothing else will come."""


@dataclass(frozen=True)
class Call:
    """What `fit`'s last call of the compiled function did.

    Attributes:
        losses: float32 `[steps]`, of each step that was made, over all replicas.
        troubles: for each of them the names of `guard.TROUBLES` that were not finite; () for a
            clean step.
        waited: seconds in which the first of them waited for its batch, with nothing to do for the
            devices; NaN under op determinism.
        steps: as many as were to be made; fewer were where trouble stopped them.
    """

    losses: np.ndarray
    troubles: tuple[tuple[str, ...], ...]
    waited: float
    steps: int


class CompiledLoop(keras.Model):
    """A Keras model whose `fit` runs `steps_per_execution` steps in one call, on any number of
    replicas.

    Keras' own loop fails with several replicas and several steps, and has XLA compile around
    `strategy.run` instead of inside it. The model's `reported_step` must give float32 scalars,
    named by `log_names()`, and the step's loss and flags (see there).

    `fit` raises `NotFiniteError` before any callback sees the step, so nothing of it is saved: with
    `on_nonfinite` `stop` at the first step that `guard.BEFORE` finds trouble in, and none is made
    after it; with `skip` after 20 such steps one after the other; with either when weights or
    target aren't finite themselves, which no step that is left out mends.

    Args:
        on_nonfinite: `stop` or `skip`.

    Attributes:
        steps_seen: steps that were made or left out; set it where a run goes on.
        skipped_steps: of which were left out; likewise.
        last_call: what the last call did, or None.

    Raises:
        ValueError: for another `on_nonfinite`.
    """

    def __init__(self, on_nonfinite: str = "stop", **kwargs):
        super().__init__(**kwargs)
        if on_nonfinite not in ("stop", "skip"):
            raise ValueError(f'on_nonfinite: expected "stop" or "skip"; received {on_nonfinite!r}')
        self.on_nonfinite = on_nonfinite
        self.steps_seen = self.skipped_steps = 0
        self.last_call: Call | None = None
        self._skipped_in_row = 0

    def compile(self, optimizer="rmsprop", *, jit_compile="auto", **kwargs):
        """As `keras.Model.compile`, with another meaning of `jit_compile="auto"`: XLA on one GPU,
        and nowhere else.

        On CPU XLA's matrix products are slower (docs/results has that of the views), a TPU compiles
        everything by itself, and what is compiled for one of several replicas can't reach the
        others' variables.

        Raises:
            ValueError: for an optimizer that accumulates gradients by itself: the target would move
                at steps that change nothing.
        """
        optimizer = keras.optimizers.get(optimizer)
        if getattr(optimizer, "inner_optimizer", optimizer).gradient_accumulation_steps:
            raise ValueError(
                "optimizer: expected no gradient_accumulation_steps, which would move the target "
                "at steps that change nothing; "
                "BYOL(gradient_accumulation_steps=...) accumulates"
            )
        if jit_compile == "auto":
            strategy = self.distribute_strategy
            on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
            jit_compile = strategy.num_replicas_in_sync == 1 and not on_cpu(strategy) and not on_tpu
        super().compile(optimizer, jit_compile=jit_compile, **kwargs)

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch, while `fit` runs. A callback's `on_epoch_begin` may set it, for that
        epoch and those after it.

        `fit` takes one number for all epochs, and one that goes on in the middle of an epoch has a
        shorter first one.
        """
        return self._epoch_iterator().steps_per_epoch

    @epoch_steps.setter
    def epoch_steps(self, steps: int) -> None:
        self._epoch_iterator().steps_per_epoch = steps

    def log_names(self) -> list[str]:
        """The keys of what `train_step` returns."""
        raise NotImplementedError

    def reported_step(self, data) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """(logs, float32 `[1 + len(TROUBLES)]`: this replica's loss, and 1 for each of `TROUBLES`
        that it found) of one step."""
        raise NotImplementedError

    def train_step(self, data):
        """One step; returns its logs."""
        return self.reported_step(data)[0]

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds the optimizer. Keras would take a batch of the stream to find shapes, which a
        built model has, and pass it to `call`."""
        if iterator is not None:
            self._epoch_iterator = weakref.ref(
                iterator
            )  # `fit` hands it out here and nowhere else, and lets go of it at its end
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force=False):
        """Builds what `fit` calls with its iterator; see the class."""
        if self.train_function is not None and not force:
            return self.train_function
        strategy, steps = self.distribute_strategy, self.steps_per_execution
        replica_step = self.reported_step
        if self.jit_compile and not self.run_eagerly:
            replica_step = tf.function(replica_step, jit_compile=True, autograph=False)

        now = _clock()

        def one_step(iterator):
            began = now()
            with tf.control_dependencies([began]):
                batch = next(iterator)
            with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
                waited = now() - began
            logs, report = strategy.run(replica_step, args=(batch,))
            mean = {
                name: strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None)
                for name, value in logs.items()
            }
            return mean, strategy.reduce(tf.distribute.ReduceOp.MEAN, report, axis=None), waited

        def all_steps(iterator):
            if steps == 1:
                logs, report, waited = one_step(iterator)
                return logs, report[None], waited

            def again(done, logs, reports, waited):
                logs, report, now_waited = one_step(iterator)
                # The devices have nothing to do before a call's first step only; later ones may
                # wait while those still compute.
                return (
                    done + 1,
                    logs,
                    tf.tensor_scatter_nd_update(reports, [[done]], [report]),
                    tf.where(done == 0, now_waited, waited),
                )

            start = (
                {name: tf.zeros(()) for name in self.log_names()},
                tf.zeros((steps, 1 + len(TROUBLES))),
                tf.zeros((), tf.float64),
            )
            _, logs, reports, waited = tf.while_loop(
                lambda done, _, reports, __: (done < steps) & ~self._must_stop(reports),
                again,
                (tf.constant(0), *start),
            )
            return logs, reports, waited

        if not self.run_eagerly:
            all_steps = tf.function(all_steps, autograph=False, reduce_retracing=True)

        def call(iterator):
            logs, reports, waited = all_steps(iterator)
            self._note(reports.numpy(), float(waited))
            return logs

        self.train_function = call
        return self.train_function

    def _must_stop(self, reports: tf.Tensor) -> tf.Tensor:
        """Whether a step of a call found what ends the run."""
        ending = TROUBLES if self.on_nonfinite == "stop" else LASTING
        return tf.reduce_any(reports[:, 1 + len(TROUBLES) - len(ending) :] > 0.0)

    def _note(self, reports: np.ndarray, waited: float) -> None:
        """Keeps a call's report for callbacks, or raises `NotFiniteError`."""
        found = [
            tuple(name for name, flag in zip(TROUBLES, report[1:], strict=True) if flag > 0.0)
            for report in reports
        ]
        ending = TROUBLES if self.on_nonfinite == "stop" else LASTING
        ended = [index for index, names in enumerate(found) if set(names) & set(ending)]
        made = ended[0] + 1 if ended else len(found)
        self.last_call = Call(reports[:made, 0], tuple(found[:made]), waited, len(found))
        for names in self.last_call.troubles:
            self.steps_seen += 1
            if set(names) & set(LASTING):
                raise NotFiniteError(_text(self.steps_seen, names))
            if set(names) & set(ending):
                change = "monitor.on_nonfinite=skip"
                text = (
                    f"{_text(self.steps_seen, names)}. It comes again from a checkpoint before "
                    f"it; {change} leaves such a step out"
                )
                raise NotFiniteError(text, change)
            skipped = bool(set(names) & set(BEFORE))
            self.skipped_steps += skipped
            self._skipped_in_row = self._skipped_in_row + 1 if skipped else 0
            if self._skipped_in_row >= MOST_SKIPPED:
                raise NotFiniteError(
                    f"{_text(self.steps_seen, names)}; {MOST_SKIPPED} steps were skipped one after "
                    "the other"
                )


def _clock() -> Callable[[], tf.Tensor]:
    """Seconds, a float64 scalar, where a graph may ask for them; NaN where TensorFlow's op
    determinism forbids it."""
    try:
        tf.timestamp()
    except tf.errors.FailedPreconditionError:
        return lambda: tf.constant(float("nan"), tf.float64)
    return tf.timestamp


def _text(step: int, names: tuple[str, ...]) -> str:
    """What a step found, for people; steps are counted from 1."""
    return f"step {step:,}: not finite: {', '.join(names)}"
