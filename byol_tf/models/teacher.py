"""A frozen encoder as the teacher of another: from views to its representations."""

from collections.abc import Sequence

import keras

from byol_tf.errors import ProtocolError
from byol_tf.models.inference import split_inference_model
from pipelines.sources.pixels import white


def teacher_of_views(
    inference: keras.Model, size: int, mean: Sequence[float], std: Sequence[float]
) -> keras.Model:
    """Builds a model from normalised views to the representations of an encoder that takes pixels.

    An inference model of byol_tf gets the views in its own size and normalisation. Another model
    gets them as the bytes that an image file of the view would have.

    Args:
        inference: from images `[N, H, W, channels]` to representations `[N, d]`; its layers are
            shared. Images have values from 0 to 255, or to 65,535 if it takes uint16.
        size: side of a view in pixels.
        mean: a number for each channel that was subtracted from image / white.
        std: a number for each channel that divided it afterwards.

    Returns:
        A functional model from float views `[N, size, size, channels]` to float32 `[N, d]`, for
        `BYOL(encoder, target="teacher", teacher=...)`.

    Raises:
        ProtocolError: if the teacher takes images of other channels.
    """
    received = inference.inputs[0]
    if received.shape[3] != len(mean):
        raise ProtocolError(
            f"expected an encoder of images of {len(mean)} channels; received one of "
            f"{received.shape[3]}"
        )
    top = float(white(received.dtype)) if "int" in received.dtype else 255.0
    views = keras.Input((size, size, len(mean)), dtype="float32", name="views")
    supports_jit = True
    scale, offset = [top * s for s in std], [top * m for m in mean]
    x = keras.layers.Rescaling(scale, offset, dtype="float32", name="pixels")(views)
    x = keras.ops.clip(x, 0.0, top)  # fast colour operations of the views may go beyond
    try:
        resize, normalise, encoder = split_inference_model(inference)
    except ProtocolError:
        images = keras.ops.cast(keras.ops.round(x), inference.inputs[0].dtype)
        representations = inference(images, training=False)
        supports_jit = False
    else:
        if size != resize.height:
            supports_jit = size < resize.height  # XLA has no antialiased resize
            x = keras.layers.Resizing(
                resize.height,
                resize.width,
                "bilinear",
                antialias=not supports_jit,
                dtype="float32",
                name="resize",
            )(x)
        representations = encoder(normalise(x), training=False)
    representations = keras.layers.Activation("linear", dtype="float32", name="float32")(
        representations
    )
    teacher = keras.Model(views, representations, name="teacher")
    teacher.supports_jit = supports_jit
    return teacher
