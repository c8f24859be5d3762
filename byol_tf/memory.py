"""What to say where a device's memory doesn't hold a training step. Needs no TensorFlow."""

from byol_tf.config import Config


def out_of_memory_text(config: Config, error: Exception) -> str:
    """The batch, what of the config lowers the memory of its step, and TensorFlow's own first line.

    Args:
        config: of the run.
        error: `tf.errors.ResourceExhaustedError`.
    """
    training, views = config.training, config.views
    ways = [
        f"training.accumulation={2 * training.accumulation} (the same optimizer step from parts of the batch, with a part's statistics)"
    ]
    if not training.recompute:
        ways.append("training.recompute=true (the same numbers, more time)")
    if config.devices.precision == "float32":
        ways.append("devices.precision=mixed_bfloat16")
    ways.append(f"a smaller training.batch_size than {training.batch_size}")
    ways.append(f"a smaller views.size than {views.size}")
    batch = f"{training.batch_size} images of {views.size} x {views.size} pixels"
    if training.accumulation > 1:
        batch += f" in {training.accumulation} parts"
    said = str(error).strip().splitlines()
    detail = next((line for line in said if "OOM" in line or "ut of memory" in line), said[0] if said else type(error).__name__)
    return (
        f"out of memory: a step on a batch of {batch} doesn't fit. To try, in this order:\n  " + "\n  ".join(ways) + f"\n{detail.strip()}"
    )
