"""A Keras model whose `fit` runs several training steps in one compiled call."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from byol_tf import compat
from byol_tf.devices import on_cpu
from byol_tf.errors import NotFiniteError
from byol_tf.models.nonfinite import CHECKS, FATAL, PRE_UPDATE

MAX_SKIPPED_IN_ROW = 20
"""Consecutive skipped steps after which training stops: more than an occasional bad batch."""

STEP_LOSS, NONFINITE = "step_loss", "nonfinite/"
"""Logs of a `train_step` that `fit` keeps in `last_call` instead of passing them to callbacks: the
loss of this step alone; and with a name of `CHECKS` appended, 1 where it wasn't finite, else 0."""

Logs = dict[str, np.ndarray]


@dataclass(frozen=True)
class CallReport:
    """Report of `fit`'s last call of the compiled function.

    Attributes:
        losses: float32 `[steps made]`, the loss of each step over all replicas.
        failures: for each of them the names of `CHECKS` that weren't finite; () for a clean step.
    """

    losses: np.ndarray
    failures: tuple[tuple[str, ...], ...]


class MultiStepTrainer(compat.PrebuiltModel, keras.Model):
    """A built Keras model whose `fit` runs `steps_per_execution` of its `train_step` in one call.

    Keras' own loop fails with several replicas and several steps, and has XLA compile around
    `strategy.run` instead of inside it. As in Keras, a subclass overrides `train_step(data)`: it
    returns logs, scalars by name, which callbacks get as the mean over replicas. Two kinds of logs
    are taken out and kept in `last_call`: `STEP_LOSS` (without it, the log `loss`, else NaN) and
    those that begin with `NONFINITE`. A `train_step` that returns none of the latter isn't watched.

    `fit` raises `NotFiniteError` before any callback sees the step, so nothing of it is saved: with
    `on_nonfinite` `stop` at the first step that isn't finite, after which none is made; with `skip`
    after `MAX_SKIPPED_IN_ROW` such steps in a row; with either as soon as one of `FATAL` isn't
    finite, which no skipped step mends.

    Args:
        on_nonfinite: `stop` or `skip`.

    Attributes:
        steps_seen: steps made or skipped so far; set it where a run is resumed.
        skipped_steps: how many of them were skipped; likewise.
        last_call: report of the last call, or None.

    Raises:
        ValueError: for another `on_nonfinite`.
    """

    def __init__(self, on_nonfinite: str = "stop", **kwargs):
        super().__init__(**kwargs)
        if on_nonfinite not in ("stop", "skip"):
            raise ValueError(f'on_nonfinite: expected "stop" or "skip"; received {on_nonfinite!r}')
        self.on_nonfinite = on_nonfinite
        self.steps_seen = self.skipped_steps = 0
        self.last_call: CallReport | None = None
        self._skipped_in_row = 0
        self.train_function: Callable[[Iterator], Logs] | None

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "rmsprop",
        *,
        jit_compile: bool | str = "auto",
        **kwargs,
    ) -> None:
        """Compiles as `keras.Model.compile`; `jit_compile="auto"` is XLA on one GPU, else none.

        On a CPU XLA's matrix products are slower (docs/results has that of the views), a TPU
        compiles everything by itself, and what is compiled for one of several replicas can't reach
        the others' variables.

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

    def make_train_function(self, force: bool = False) -> Callable[[Iterator], Logs]:
        """Builds the function that `fit` calls with its iterator; see the class."""
        if self.train_function is not None and not force:
            return self.train_function
        strategy, steps = self.distribute_strategy, self.steps_per_execution
        names: list[str] = []  # of a step's L logs, known once it is traced

        def replica_step(batch: object) -> tf.Tensor:  # [L]
            logs = self.train_step(batch)
            names[:] = logs
            return tf.stack([tf.cast(value, tf.float32) for value in logs.values()])

        if self.jit_compile and not self.run_eagerly:
            replica_step = tf.function(replica_step, jit_compile=True, autograph=False)

        def one_step(iterator: Iterator) -> tf.Tensor:  # [L], mean over replicas
            logs = strategy.run(replica_step, args=(next(iterator),))
            return strategy.reduce(tf.distribute.ReduceOp.MEAN, logs, axis=None)

        def all_steps(iterator: Iterator) -> tf.Tensor:  # [steps made, L]
            if steps == 1:
                return one_step(iterator)[None]

            def body(step: tf.Tensor, _: tf.Tensor, rows: tf.TensorArray) -> tuple:
                row = one_step(iterator)
                return step + 1, self._ends_run(names, row), rows.write(step, row)

            made, _, rows = tf.while_loop(
                lambda step, stop, _: (step < steps) & ~stop,
                body,
                (0, False, tf.TensorArray(tf.float32, steps, element_shape=[None])),
            )
            return rows.gather(tf.range(made))

        if not self.run_eagerly:
            all_steps = tf.function(all_steps, autograph=False, reduce_retracing=True)

        def train_function(iterator: Iterator) -> Logs:
            rows = all_steps(iterator).numpy()
            logs = dict(zip(names, rows.T, strict=True))  # [steps made] each
            self._handle_report(_take_report(logs))
            return {name: values[-1] for name, values in logs.items()}

        self.train_function = train_function
        return train_function

    @property
    def _ending_checks(self) -> tuple[str, ...]:
        return CHECKS if self.on_nonfinite == "stop" else FATAL

    def _ends_run(self, names: list[str], row: tf.Tensor) -> tf.Tensor:
        """Returns whether a step's logs `[L]` hold a failure after which no step is made."""
        ending = {NONFINITE + name for name in self._ending_checks}
        failed = [row[index] > 0.0 for index, name in enumerate(names) if name in ending]
        return tf.reduce_any(failed) if failed else tf.constant(False)

    def _handle_report(self, report: CallReport) -> None:
        """Keeps a call's report for callbacks, or raises `NotFiniteError`."""
        self.last_call = report
        for failures in report.failures:
            self.steps_seen += 1
            text = f"step {self.steps_seen:,}: not finite: {', '.join(failures)}"
            if set(failures) & set(FATAL):
                raise NotFiniteError(text)
            if set(failures) & set(self._ending_checks):
                change = "monitor.on_nonfinite=skip"
                text += f". It recurs when the run is resumed; {change} skips such a step"
                raise NotFiniteError(text, change)
            skipped = bool(set(failures) & set(PRE_UPDATE))
            self.skipped_steps += skipped
            self._skipped_in_row = self._skipped_in_row + 1 if skipped else 0
            if self._skipped_in_row >= MAX_SKIPPED_IN_ROW:
                raise NotFiniteError(f"{text}; {MAX_SKIPPED_IN_ROW} steps were skipped in a row")


def _take_report(logs: Logs) -> CallReport:
    """Moves the report of a call out of its logs, `[steps made]` by name."""
    made = len(next(iter(logs.values())))
    losses = logs.pop(STEP_LOSS, logs.get("loss", np.full(made, np.nan, np.float32)))
    flags = {name: logs.pop(NONFINITE + name) for name in CHECKS if NONFINITE + name in logs}
    failures = tuple(
        tuple(name for name, flag in flags.items() if flag[step] > 0.0) for step in range(made)
    )
    return CallReport(losses, failures)
