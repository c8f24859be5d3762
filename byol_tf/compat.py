"""Private names of Keras and TensorFlow that byol_tf depends on, one small function each.

Test lanes cover Keras 3.12 to 3.16 and TensorFlow 2.19 to 2.22, the last of each as pre-releases. A
release that renames one of these breaks this file and no other. TensorFlow is imported inside the
functions, since `devices` has to set its environment variables first.
"""

import contextlib
import ctypes
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


_Built = TypeVar("_Built")


class PrebuiltModel:
    """Mixin for a `keras.Model` that is built, with its optimizer, before `fit` is called.

    Keras' `fit` takes a batch of the stream to find shapes, passes it to `call` and then starts the
    stream again. There is no public switch: `Model._maybe_symbolic_build` always asks the stream
    under a `tf.distribute` strategy.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds nothing but the optimizer."""
        if not self.optimizer.built:  # type: ignore[attr-defined]  # of keras.Model
            with self.distribute_strategy.scope():  # type: ignore[attr-defined]  # of keras.Model
                self.optimizer.build(self.trainable_variables)  # type: ignore[attr-defined]

    @property
    def metrics(self) -> "list[keras.metrics.Metric]":
        """Metrics of the model and of its layers, without that of a loss given to `compile`.

        Keras makes that one for a model without such a loss too.
        """
        metrics = super().metrics  # type: ignore[misc]  # of keras.Model
        return [metric for metric in metrics if metric is not self._loss_tracker]  # type: ignore[attr-defined]


class OptimizerHooks:
    """Mixin for a `keras.optimizers.Optimizer`: public names for hooks that Keras keeps private.

    The public `exclude_from_weight_decay` takes one list before the variables are known, so a rule
    by shape, and a decay at the rate of a variable's group, can only be had by these hooks.
    """

    def variable_key(self, variable: Any) -> Any:
        """Returns the same key for a variable and for one replica's copy of it."""
        return self._var_key(variable)  # type: ignore[attr-defined]  # of Optimizer

    def variable_index(self, variable: Any) -> int:
        """Returns the position of a variable among those that the optimizer was built with."""
        return self._get_variable_index(variable)  # type: ignore[attr-defined]  # of Optimizer

    @property
    def gradients_seen(self) -> Any:
        """The number of gradients applied, at which Keras evaluates learning rate schedules.

        The public `iterations` counts updates, fewer with `gradient_accumulation_steps`.
        """
        return self._iterations  # type: ignore[attr-defined]  # of Optimizer

    def decays(self, variable: Any) -> bool:
        """Returns whether a variable gets weight decay; `exclude_from_weight_decay` sets which."""
        return super()._use_weight_decay(variable)  # type: ignore[misc]  # of Optimizer

    def apply_decoupled_decay(self, variables: Any) -> None:
        """Applies Keras' own decay to all variables, ahead of the updates."""
        super()._apply_weight_decay(variables)  # type: ignore[misc]  # of Optimizer

    def _use_weight_decay(self, variable: Any) -> bool:
        return self.decays(variable)

    def _apply_weight_decay(self, variables: Any) -> None:
        self.apply_decoupled_decay(variables)


def build_without_values(build: Callable[[], _Built]) -> _Built:
    """Builds models whose variables have shapes and no values, so that they take no memory.

    When a public `StatelessScope` ends, or the next one, Keras gives values to the variables that
    were made in it, by a list that has no public name.

    Args:
        build: returns the models.
    """
    import keras
    from keras.src.backend.common import global_state

    try:
        with keras.StatelessScope(initialize_variables=False):
            return build()
    finally:
        global_state.set_global_attribute("uninitialized_variables", [])


def failed_download(error: BaseException) -> tuple[str, str] | None:
    """Returns the URL and the local file of a `keras.utils.get_file` that an error came from.

    The error itself, a plain `Exception`, names the URL alone, and the file may have another name.
    None if the error came from elsewhere.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "get_file" and "download_target" in frame.f_locals:
            return frame.f_locals["origin"], frame.f_locals["download_target"]
    return None


def all_layers(model: "keras.Layer") -> "list[keras.Layer]":
    """Returns a model or layer and every layer inside it, at any depth.

    The public `Model.layers` lists the first level only, and of a subclassed layer nothing.
    """
    return list(model._flatten_layers())  # noqa: SLF001


def is_random(layer: "keras.layers.Layer") -> bool:
    """Returns whether a layer draws random numbers in training: dropout, noise, stochastic depth.

    Layers have no public property for it.
    """
    return hasattr(layer, "seed_generator") or hasattr(layer, "drop_path_rate")


def inner_layers(layer: "keras.Layer") -> "list[keras.Layer]":
    """Returns the layers directly inside a layer, in the order in which they were created.

    Only models have a public list of them.
    """
    return list(layer._flatten_layers(recursive=False, include_self=False))  # noqa: SLF001


def call_losses(model: "keras.Model") -> "list[tf.Tensor]":
    """Returns the losses that layers added in the model's last call.

    They are those of `add_loss` and of activity regularisers. The public `Model.losses` also has
    weight regularisers, which don't depend on the call, and nothing tells them apart.
    """
    return [loss for layer in all_layers(model) for loss in layer._get_own_losses()]  # noqa: SLF001


def unknown_variables(
    optimizer: "keras.optimizers.Optimizer", variables: "Sequence[keras.Variable]"
) -> "list[keras.Variable]":
    """Returns the variables that an optimizer wasn't built for.

    The public `apply_gradients` raises only inside the compiled step.
    """
    known = optimizer._trainable_variables_indices  # noqa: SLF001
    return [variable for variable in variables if optimizer._var_key(variable) not in known]  # noqa: SLF001


def branches_must_merge() -> bool:
    """Returns whether all-reduces of this strategy are `merge_call`s, as on several CPUs or GPUs.

    Such an operation can stand in no `tf.cond` or `tf.while_loop` of a replica. Keras'
    `LossScaleOptimizer` asks the same function; there is no public one.
    """
    import tensorflow as tf

    return not tf.__internal__.distribute.strategy_supports_no_merge_call()


def merge_or_call(function: Callable[..., object], *args: Any) -> Any:
    """Calls `function(strategy, *args)` once for all replicas, where the strategy needs it.

    Keras' optimizers update variables by the same function. The public `merge_call` fails inside
    `jit_compile=True` on several GPUs, where none is needed.
    """
    import tensorflow as tf

    return tf.__internal__.distribute.interim.maybe_merge_call(
        function, tf.distribute.get_strategy(), *args
    )


def call_on_each_replica(
    strategy: "tf.distribute.Strategy", function: Callable[..., object], args: Sequence[Any]
) -> None:
    """Calls a function in each replica's context, from a `merge_call`.

    The public `Strategy.run` would start a second set of replicas inside the first. Keras'
    `LossScaleOptimizer` calls the same method.
    """
    strategy.extended.call_for_each_replica(function, args=tuple(args))


def keep_collective_keys() -> None:
    """Has collectives of a compiled function keep their keys from call to call.

    To be called before a strategy is built. By default each call gets new keys, so that workers may
    trace a function at different times, which ours don't. TensorFlow never frees a used key: the
    soak test's tiny network grew by 168 MB in 1,000 steps
    (https://github.com/tensorflow/tensorflow/issues/42616). There is no public switch.
    """
    from tensorflow.python.distribute import cross_device_utils

    cross_device_utils.CollectiveReplicaLauncher._prefer_unique_instance_key = False  # noqa: SLF001


def set_heartbeat_timeout(seconds: float) -> None:
    """Sets after how long without a heartbeat TensorFlow takes a worker for lost.

    To be called before the strategy is built, which configures the rest and has no argument for
    this. TensorFlow's default is ten seconds.
    """
    from tensorflow.python.eager import context

    current = context.context()
    configure = current.configure_coordination_service

    def configure_with_timeout(**options: Any) -> None:
        configure(**options, heartbeat_timeout_in_ms=round(1000 * seconds))

    current.configure_coordination_service = configure_with_timeout


@contextlib.contextmanager
def waiting_without_interpreter_lock() -> Iterator[None]:
    """While it is entered, a strategy that waits for its workers lets Python's threads run.

    The wait is in `TFE_EnableCollectiveOps` of TensorFlow's C API. TensorFlow's own binding calls
    that with the interpreter's lock held, so that no thread and no signal handler runs until all
    workers have connected; ctypes releases the lock. TensorFlow also sets a handler of its own for
    SIGTERM there, in place of which the former one is set again. Where the library has another
    name, as on macOS and Windows, or lacks a function, nothing is changed.
    """
    import tensorflow as tf
    from tensorflow.python import pywrap_tfe

    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    try:
        library = ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2"))
        new_status = ctypes.CFUNCTYPE(pointer)(("TF_NewStatus", library))
        get_code = ctypes.CFUNCTYPE(ctypes.c_int, pointer)(("TF_GetCode", library))
        get_message = ctypes.CFUNCTYPE(text, pointer)(("TF_Message", library))
        connect = ctypes.CFUNCTYPE(None, pointer, text, ctypes.c_size_t, pointer)(
            ("TFE_EnableCollectiveOps", library)
        )
    except (OSError, AttributeError):
        yield
        return
    unwrap = ctypes.PYFUNCTYPE(pointer, ctypes.py_object, text)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    # TensorFlow's capsules have no name until 2.21, and one from 2.22 on.
    get_name = ctypes.PYFUNCTYPE(text, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))

    def enable_collective_ops(context: Any, server: bytes) -> None:
        status = new_status()
        arguments = (unwrap(context, get_name(context)), server, len(server), status)
        thread = threading.Thread(target=connect, args=arguments, name="connect", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.1)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        if code := get_code(status):
            error = tf.compat.v1.errors.exception_type_from_error_code(code)
            raise error(None, None, get_message(status).decode(errors="replace"))

    binding = pywrap_tfe.TFE_EnableCollectiveOps
    pywrap_tfe.TFE_EnableCollectiveOps = enable_collective_ops
    try:
        yield
    finally:
        pywrap_tfe.TFE_EnableCollectiveOps = binding


def graph_calls(model: "keras.Model") -> list[Any]:
    """Returns the calls of layers in a functional or `Sequential` model, in the order they run.

    Each call has `input_tensors` and `output_tensors`. The public `Model.operations` lists the
    layers without the tensors, and a shared layer once.

    Raises:
        TypeError: if the model is subclassed, so that its calls aren't known.
    """
    functional = getattr(model, "_functional", model)  # a Sequential model holds a functional one
    by_depth = getattr(functional, "_nodes_by_depth", None)
    if by_depth is None:
        raise TypeError(f'"{model.name}" is no functional or Sequential model')
    return [call for depth in sorted(by_depth, reverse=True) for call in by_depth[depth]]
