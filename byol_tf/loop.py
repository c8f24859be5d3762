"""The training loop that `fit` calls: several steps at once, on one replica or many, compiled where that pays."""

import weakref

import keras
import tensorflow as tf

from byol_tf.devices import on_cpu


class CompiledLoop(keras.Model):
    """A Keras model whose `fit` runs `steps_per_execution` steps in one call, on any number of replicas.

    Keras' own loop fails with several replicas and several steps, and has XLA compile around `strategy.run` instead of inside it. The
    model's `train_step` must give float32 scalars, named by `log_names()`.
    """

    def compile(self, optimizer="rmsprop", *, jit_compile="auto", **kwargs):
        """As `keras.Model.compile`, with another meaning of `jit_compile="auto"`: XLA on one GPU, and nowhere else.

        On CPU XLA's matrix products are slower (docs/results has that of the views), a TPU compiles everything by itself, and what is
        compiled for one of several replicas can't reach the others' variables.

        Raises:
            ValueError: for an optimizer that accumulates gradients by itself: the target would move at steps that change nothing.
        """
        optimizer = keras.optimizers.get(optimizer)
        if getattr(optimizer, "inner_optimizer", optimizer).gradient_accumulation_steps:
            raise ValueError(
                "optimizer: expected no gradient_accumulation_steps, which would move the target at steps that change nothing; "
                "BYOL(accumulation=...) accumulates"
            )
        if jit_compile == "auto":
            strategy = self.distribute_strategy
            on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
            jit_compile = strategy.num_replicas_in_sync == 1 and not on_cpu(strategy) and not on_tpu
        super().compile(optimizer, jit_compile=jit_compile, **kwargs)

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch, while `fit` runs. A callback's `on_epoch_begin` may set it, for that epoch and those after it.

        `fit` takes one number for all epochs, and one that goes on in the middle of an epoch has a shorter first one.
        """
        return self._epoch_iterator().steps_per_epoch

    @epoch_steps.setter
    def epoch_steps(self, steps: int) -> None:
        self._epoch_iterator().steps_per_epoch = steps

    def log_names(self) -> list[str]:
        """The keys of what `train_step` returns."""
        raise NotImplementedError

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds the optimizer. Keras would take a batch of the stream to find shapes, which a built model has, and pass it to `call`."""
        if iterator is not None:
            self._epoch_iterator = weakref.ref(iterator)  # `fit` hands it out here and nowhere else, and lets go of it at its end
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force=False):
        """Builds what `fit` calls with its iterator; see the class."""
        if self.train_function is not None and not force:
            return self.train_function
        if self.run_eagerly:
            return super().make_train_function(force)
        strategy, steps = self.distribute_strategy, self.steps_per_execution
        replica_step = self.train_step
        if self.jit_compile:
            replica_step = tf.function(replica_step, jit_compile=True, autograph=False)

        def one_step(iterator):
            logs = strategy.run(replica_step, args=(next(iterator),))
            return {name: strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None) for name, value in logs.items()}

        @tf.function(autograph=False, reduce_retracing=True)
        def all_steps(iterator):
            if steps == 1:
                return one_step(iterator)
            start = {name: tf.zeros(()) for name in self.log_names()}
            _, logs = tf.while_loop(
                lambda done, _: done < steps, lambda done, _: (done + 1, one_step(iterator)), loop_vars=(tf.constant(0), start)
            )
            return logs

        self.train_function = all_steps
        return self.train_function
