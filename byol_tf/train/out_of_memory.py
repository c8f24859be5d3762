"""The error of a run whose training step doesn't fit into a device's memory."""

from byol_tf.config.schema import Config
from byol_tf.devices import run_precision
from byol_tf.errors import OutOfMemory, memory_line

_SAME_RUN = "training.rematerialize=true"
"""The only change that a resumed run may have: all others change its numbers."""


def out_of_memory(config: Config, error: Exception) -> OutOfMemory:
    """Returns the error that ends the run and names the keys that lower a step's memory.

    Args:
        config: of the run.
        error: TensorFlow's `ResourceExhaustedError`, whose own line is kept.
    """
    training, views = config.training, config.views
    micro_batches = training.gradient_accumulation_steps
    batch = f"{training.batch_size} images of {views.size} x {views.size} pixels"
    if micro_batches > 1:
        batch += f" in {micro_batches} micro-batches"
    lines = [f"out of memory: a step on a batch of {batch} doesn't fit."]
    if training.rematerialize:
        lines.append("This run can be resumed only on a device with more memory.")
    else:
        lines.append(f"This run can be resumed with {_SAME_RUN} (the same numbers, more time).")
    lines += [
        "A new run (--fresh) can have, to try in this order,",
        f"  training.gradient_accumulation_steps={2 * micro_batches} (one update from several "
        "micro-batches, each with its own batch statistics)",
    ]
    if run_precision(config.devices.precision, config.devices.strategy) == "float32":
        lines.append("  devices.precision=mixed_bfloat16")
    lines += [
        f"  a smaller training.batch_size than {training.batch_size}",
        f"  a smaller views.size than {views.size}",
        memory_line(error),
    ]
    return OutOfMemory("\n  ".join(lines), None if training.rematerialize else _SAME_RUN)
