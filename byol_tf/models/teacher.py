"""A frozen encoder as the teacher of another: from views to its representations."""

from collections.abc import Sequence

import keras

from byol_tf.errors import ProtocolError
from byol_tf.models.inference import split_inference_model


def teacher_of_views(
    inference: keras.Model, size: int, mean: Sequence[float], std: Sequence[float]
) -> keras.Model:
    """Builds a model from normalised views to the representations of an encoder that takes pixels.

    An inference model of byol_tf gets the views in its own size and normalisation. Another model
    gets them as the bytes that an image file of the view would have.

    Args:
        inference: from images `[N, H, W, 3]`, values 0 to 255, to representations `[N, d]`; its
            layers are shared.
        size: side of a view in pixels.
        mean: three numbers that were subtracted from the channels of image / 255.
        std: three numbers that divided them afterwards.

    Returns:
        A functional model from float views `[N, size, size, 3]` to float32 `[N, d]`, for
        `BYOL(encoder, target="teacher", teacher=...)`.
    """
    views = keras.Input((size, size, 3), dtype="float32", name="views")
    supports_jit = True
    scale, offset = [255.0 * s for s in std], [255.0 * m for m in mean]
    x = keras.layers.Rescaling(scale, offset, dtype="float32", name="pixels")(views)
    x = keras.ops.clip(x, 0.0, 255.0)  # fast colour operations of the views may go beyond
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
