"""What to do where the input is slower than the step."""

from byol_tf.config import Config

_DRAWN = ("textures", "digits")


def remedies(config: Config) -> str:
    """What of a config could change for the host to do less for each image, in words; empty if it does the least already.

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
