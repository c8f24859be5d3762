"""What to say where a device's memory doesn't hold a training step. Needs no TensorFlow."""

from byol_tf.config import Config


def out_of_memory_text(config: Config, error: Exception) -> str:
    """The batch, what of the config lowers the memory of its step, and TensorFlow's own line.

    Args:
        config: of the run.
        error: `tf.errors.ResourceExhaustedError`.
    """
    training, views = config.training, config.views
    ways = [f"training.accumulation={2 * training.accumulation} (one step from parts of the batch, each with its own batch statistics)"]
    if not training.recompute:
        ways.append("training.recompute=true (the same numbers, more time)")
    if config.devices.precision == "float32":
        ways.append("devices.precision=mixed_bfloat16")
    ways.append(f"a smaller training.batch_size than {training.batch_size}")
    ways.append(f"a smaller views.size than {views.size}")
    parts = f" in {training.accumulation} parts" if training.accumulation > 1 else ""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    detail = next((line for line in lines if "OOM" in line or "ut of memory" in line), lines[0]).strip()
    batch = f"{training.batch_size} images of {views.size} x {views.size} pixels{parts}"
    return "\n  ".join([f"out of memory: a step on a batch of {batch} doesn't fit. To try, in this order:", *ways, detail])
