"""A Keras model whose `fit` runs several training steps in one compiled call."""

import contextlib
import warnings
from collections.abc import Callable, Generator, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from byol_tf import compat
from byol_tf.devices import on_cpu
from byol_tf.errors import NotFiniteError, check_choice
from byol_tf.models.batches import refusal
from byol_tf.models.nonfinite import CHECKS, FATAL, PRE_UPDATE

MAX_SKIPPED_IN_ROW = 20
"""Consecutive skipped steps after which training stops: more than an occasional bad batch."""

STEP_LOSS, NONFINITE = "step_loss", "nonfinite/"
"""Logs of a `train_step` that `fit` keeps in `last_call` instead of passing them to callbacks: the
loss of this step alone; and with a name of `CHECKS` appended, 1 where it wasn't finite, else 0."""

_CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")
_UNUSED = ("loss_weights", "metrics", "weighted_metrics")  # arguments of `compile`, beside `loss`
_UNCALLED = ("compute_loss", "compute_metrics")  # by the steps

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
    `strategy.run` instead of inside it. As in Keras, a subclass overrides `train_step(data)` and
    `test_step(data)`: they return logs, scalars by name, which callbacks get as the mean over
    replicas. Two kinds of logs of `train_step` are taken out and kept in `last_call`: `STEP_LOSS`
    (without it, the log `loss`, else NaN) and those that begin with `NONFINITE`. A `train_step`
    that returns none of the latter isn't watched.

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
        check_choice("on_nonfinite", on_nonfinite, ("stop", "skip"))
        self.on_nonfinite = on_nonfinite
        self.steps_seen = self.skipped_steps = 0
        self.last_call: CallReport | None = None
        self._skipped_in_row = 0
        self._traced_settings: Hashable = None
        self.train_function: Callable[[Iterator], Logs] | None
        self.test_function: Callable[[Iterator], Logs] | None

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "rmsprop",
        loss: None = None,
        *,
        jit_compile: bool | str = "auto",
        **kwargs,
    ) -> None:
        """Compiles as `keras.Model.compile`, and builds the optimizer.

        With `jit_compile="auto"` XLA compiles on one GPU if the model's `supports_jit` is true,
        else not. On a CPU XLA's matrix products are slower (docs/results has that of the views), a
        TPU compiles everything by itself, and what is compiled for one of several replicas can't
        reach the others' variables.

        Raises:
            ValueError: for a loss or metrics, and for a `compute_loss` or `compute_metrics` of a
                subclass, none of which `train_step` would use; for an optimizer that accumulates
                gradients by itself, as the target would move at steps that change nothing, or that
                clips those of each replica alone; and if networks or optimizer were created outside
                the model's strategy.
        """
        unused = {name: kwargs.pop(name, None) for name in _UNUSED} | {"loss": loss}
        for name, value in unused.items():
            empty = isinstance(value, list | tuple | dict) and not value
            if value is not None and not empty:
                raise ValueError(
                    f"{name}: expected None, as the model's train_step and test_step compute loss "
                    f"and metrics by themselves; received {value!r}"
                )
        for name in _UNCALLED:
            if getattr(type(self), name) is not getattr(keras.Model, name):
                raise ValueError(
                    f"{name}: expected no method of this name in {type(self).__name__}, as the "
                    "model's train_step and test_step don't call it; override those, or "
                    "loss_and_gradients(views)"
                )
        self.check_scope("compile")
        strategy = self.distribute_strategy
        with strategy.scope():
            optimizer = keras.optimizers.get(optimizer)
            if optimizer is None:
                raise ValueError("optimizer: expected an optimizer or its name; received None")
            self._check_optimizer(optimizer)
            if jit_compile == "auto":
                on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
                one_gpu = strategy.num_replicas_in_sync == 1 and not on_cpu(strategy) and not on_tpu
                jit_compile = one_gpu and all(
                    layer.supports_jit for layer in compat.all_layers(self)
                )
            super().compile(optimizer, jit_compile=jit_compile, **kwargs)
            # Before the first step, so that `load_weights` restores its state.
            if not self.optimizer.built and self.trainable_variables:
                self.optimizer.build(self.trainable_variables)
        self._warn_of_local_statistics()

    def check_scope(self, method: str) -> None:
        """Raises `ValueError` in a `strategy.scope()` that the model wasn't created in.

        Args:
            method: that is called there.
        """
        if not tf.distribute.has_strategy():
            return
        strategy = tf.distribute.get_strategy()
        # A model that was created in no scope counts as one of any scope, unlike its weights. The
        # first `compile` names a weight that was created elsewhere.
        created_here = strategy.extended.variable_created_in_scope
        if strategy is not self.distribute_strategy or (
            self.compiled and not all(created_here(weight.value) for weight in self.weights)
        ):
            raise ValueError(
                f"{method}: expected a model that was created in the strategy.scope() that "
                f'{method} is called in; "{self.name}" was created outside'
            )

    def get_compile_config(self) -> dict[str, Any]:
        """Returns the arguments of `compile`; warns of what an optimizer's config doesn't have."""
        optimizer = getattr(self, "optimizer", None)  # none before `compile`
        if getattr(getattr(optimizer, "inner_optimizer", optimizer), "has_group_rates", False):
            warnings.warn(
                "the rates of set_group_rate are not saved; set them again on the loaded model's "
                "optimizer before it trains",
                stacklevel=2,
            )
        return super().get_compile_config()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as the saved one was."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def _check_optimizer(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Raises `ValueError` for an optimizer that `compile` refuses."""
        strategy = self.distribute_strategy
        replicas = strategy.num_replicas_in_sync
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if inner.gradient_accumulation_steps:
            raise ValueError(
                "optimizer: expected no gradient_accumulation_steps, which would move the target "
                "at steps that change nothing; "
                "BYOL(gradient_accumulation_steps=...) accumulates"
            )
        clipping = [name for name in _CLIPPING if getattr(inner, name)]
        if clipping and replicas > 1:
            raise ValueError(
                f"optimizer: expected no {clipping[0]} on {replicas} replicas, as Keras clips the "
                "gradients of each replica before it adds them"
            )
        for variable in (*self.variables, *optimizer.variables):
            if not strategy.extended.variable_created_in_scope(variable.value):
                raise ValueError(
                    f'compile: expected "{variable.path}" to be created in the strategy.scope() '
                    "that the model was created in; create encoder, heads, model and optimizer in "
                    "one"
                )

    def _warn_of_local_statistics(self) -> None:
        """Warns of batch normalisation by the statistics of each replica alone."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return
        local = [
            layer.name
            for layer in compat.all_layers(self)
            if isinstance(layer, keras.layers.BatchNormalization)
            and layer.trainable
            and not layer.synchronized
        ]
        if local:
            warnings.warn(
                f"{', '.join(dict.fromkeys(local))}: batch statistics are those of each replica, "
                "not of the batch; BatchNormalization(synchronized=True) shares them",
                stacklevel=3,
            )

    def _trace_settings(self) -> tuple[Hashable, ...]:
        """Returns what a traced step depends on; `fit` traces it again where this has changed."""
        return (self.on_nonfinite, *(id(variable) for variable in self.trainable_variables))

    def make_train_function(self, force: bool = False) -> Callable[[Iterator], Logs]:
        """Builds the function that `fit` calls with its iterator, unless the last one still fits.

        Raises:
            ValueError: if nothing is trainable, or weights are that the optimizer wasn't built for.
        """
        variables = self.trainable_variables
        if not variables:
            raise ValueError(
                "fit: expected a model with weights to train; all of them are frozen (trainable is "
                "False)"
            )
        if unknown := compat.unknown_variables(self.optimizer, variables):
            raise ValueError(
                f"optimizer: was built without {len(unknown)} of the weights that are trainable "
                f'now, among them "{unknown[0].path}"; compile the model again, with a new '
                "optimizer"
            )
        settings = self._trace_settings()
        if self.train_function is not None and not force and settings == self._traced_settings:
            return self.train_function
        call = self._build_function(self.train_step, self._ends_run)

        def train_function(iterator: Iterator) -> Logs:
            logs = call(iterator)  # [steps made] each
            self._handle_report(_take_report(logs))
            return {name: values[-1] for name, values in logs.items()}

        self.train_function, self._traced_settings = train_function, settings
        return train_function

    def make_test_function(self, force: bool = False) -> Callable[[Iterator], Logs]:
        """Builds the function that `evaluate` calls with its iterator."""
        if self.test_function is None or force:
            call = self._build_function(self.test_step, lambda names, row: tf.constant(False))
            self.test_function = lambda iterator: {
                name: values[-1] for name, values in call(iterator).items()
            }
        return self.test_function

    def _build_function(
        self,
        step: Callable[[object], dict[str, tf.Tensor]],
        ends: Callable[[list[str], tf.Tensor], tf.Tensor],
    ) -> Callable[[Iterator], Logs]:
        """Compiles a step.

        Args:
            step: gives the logs, L scalars, of a replica's batch.
            ends: whether no further step is made after one, from the names and values `[L]` of its
                logs.

        Returns:
            A function that makes `steps_per_execution` steps on the batches of an iterator, fewer
            where it has fewer left, or one on that of a generator. It returns the logs, `[steps
            made]` each.
        """
        strategy, steps = self.distribute_strategy, self.steps_per_execution
        names: list[str] = []  # of a step's L logs, known once it is traced

        def replica_step(batch: object) -> tf.Tensor:  # [L]
            logs = step(batch)
            names[:] = logs
            return tf.stack([tf.cast(value, tf.float32) for value in logs.values()])

        if self.jit_compile and not self.run_eagerly:
            replica_step = tf.function(replica_step, jit_compile=True, autograph=False)

        def one_step(batch: object) -> tf.Tensor:  # [L], mean over replicas
            logs = strategy.run(replica_step, args=(batch,))
            return strategy.reduce(tf.distribute.ReduceOp.MEAN, logs, axis=None)

        def all_steps(iterator: tf.data.Iterator) -> tf.Tensor:  # [steps made, L]
            if steps == 1:
                return one_step(next(iterator))[None]

            def body(
                step: tf.Tensor,
                _: tf.Tensor,
                rows: tf.TensorArray,
                batch: tf.experimental.Optional,
            ) -> tuple:
                row = one_step(batch.get_value())
                stop = ends(names, row)
                following = tf.cond(
                    (step + 1 < steps) & ~stop, iterator.get_next_as_optional, lambda: batch
                )
                return step + 1, stop, rows.write(step, row), following

            made, _, rows, _ = tf.while_loop(
                lambda step, stop, _, batch: (step < steps) & ~stop & batch.has_value(),
                body,
                (
                    tf.constant(0),  # not Python's values, which an eager loop keeps as they are
                    tf.constant(False),
                    tf.TensorArray(tf.float32, steps, element_shape=[None]),
                    iterator.get_next_as_optional(),
                ),
            )
            return rows.gather(tf.range(made))

        def on_batch(batch: object) -> tf.Tensor:  # [1, L]
            return one_step(batch)[None]

        if not self.run_eagerly:
            all_steps = tf.function(all_steps, autograph=False, reduce_retracing=True)
            on_batch = tf.function(on_batch, autograph=False, reduce_retracing=True)

        def call(iterator: Iterator) -> Logs:
            with _refusals():
                if isinstance(iterator, Generator):  # of `train_on_batch`: arrays and None
                    rows = on_batch(tf.nest.map_structure(_tensor_or_none, next(iterator)))
                else:
                    rows = all_steps(iterator)
            if not len(rows):
                raise StopIteration  # no batch was left: for Keras the epoch's end
            return dict(zip(names, rows.numpy().T, strict=True))

        return call

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
                text += '. The step changed nothing; on_nonfinite="skip" skips such steps'
                raise NotFiniteError(text, "monitor.on_nonfinite=skip")
            skipped = bool(set(failures) & set(PRE_UPDATE))
            self.skipped_steps += skipped
            self._skipped_in_row = self._skipped_in_row + 1 if skipped else 0
            if self._skipped_in_row >= MAX_SKIPPED_IN_ROW:
                raise NotFiniteError(f"{text}; {MAX_SKIPPED_IN_ROW} steps were skipped in a row")


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Raises the sentence of a check of `batches` that failed in a compiled step."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if (text := refusal(error)) is None:
            raise
        raise ValueError(text) from None


def _tensor_or_none(value: object) -> tf.Tensor | None:
    return None if value is None else tf.convert_to_tensor(value)


def step_report(loss: tf.Tensor, failures: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the logs of a `train_step` that `fit` takes out and keeps in `last_call`.

    Args:
        loss: of this step alone, a float32 scalar.
        failures: float32 `[len(CHECKS)]`: 1 for each of `CHECKS` that isn't finite, else 0.
    """
    failed = zip(CHECKS, tf.unstack(failures), strict=True)
    return {STEP_LOSS: loss} | {NONFINITE + name: flag for name, flag in failed}


def _take_report(logs: Logs) -> CallReport:
    """Moves the report of a call out of its logs, `[steps made]` by name."""
    made = len(next(iter(logs.values())))
    losses = logs.pop(STEP_LOSS, logs.get("loss", np.full(made, np.nan, np.float32)))
    flags = {name: logs.pop(NONFINITE + name) for name in CHECKS if NONFINITE + name in logs}
    failures = tuple(
        tuple(name for name, flag in flags.items() if flag[step] > 0.0) for step in range(made)
    )
    return CallReport(losses, failures)
