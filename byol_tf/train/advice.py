"""What to say where a device's memory doesn't hold a training step. Needs no TensorFlow."""

from byol_tf.config.schema import Config
from byol_tf.errors import OutOfMemory

_SAME_RUN = "training.rematerialize=true"


def out_of_memory(config: Config, error: Exception) -> OutOfMemory:
    """What ends the run: the batch, what of the config lowers the memory of its step, and
    TensorFlow's own line.

    Args:
        config: of the run.
        error: `tf.errors.ResourceExhaustedError`.
    """
    training, views = config.training, config.views
    parts = (
        f" in {training.gradient_accumulation_steps} parts"
        if training.gradient_accumulation_steps > 1
        else ""
    )
    batch = f"{training.batch_size} images of {views.size} x {views.size} pixels{parts}"
    text = [f"out of memory: a step on a batch of {batch} doesn't fit."]
    if training.rematerialize:
        text.append("This run goes on only where a device has more memory.")
    else:
        text.append(f"This run goes on with {_SAME_RUN} (the same numbers, more time).")
    text.append("A run that begins anew (--fresh) may have, to try in this order,")
    text.append(
        f"  training.gradient_accumulation_steps={2 * training.gradient_accumulation_steps} (one "
        "step from parts of the batch, "
        "each with its own batch statistics)"
    )
    if config.devices.precision == "float32":
        text.append("  devices.precision=mixed_bfloat16")
    text.append(f"  a smaller training.batch_size than {training.batch_size}")
    text.append(f"  a smaller views.size than {views.size}")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text.append(
        next((line for line in lines if "OOM" in line or "ut of memory" in line), lines[0]).strip()
    )
    return OutOfMemory("\n  ".join(text), None if training.rematerialize else _SAME_RUN)


_DRAWN = ("textures", "digits")


def remedies(config: Config) -> str:
    """What of a config could change for the host to do less for each image, in words; empty if it
    does the least already.

    Args:
        config: of the run whose steps wait.
    """
    views, data = config.views, config.data
    found = []
    if views.engine == "keras_cv":
        found.append("views.engine=fused")
    elif views.placement == "host":
        found.append("views.placement=step")
    if data.source not in _DRAWN and (data.image_size is None or data.cache == "none"):
        found.append("photos made smaller once (data.image_size with data.cache=memory)")
    return ", or ".join(found)
