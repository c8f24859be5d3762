"""Dense features: the map that an encoder pools into its representation."""

import keras

from byol_tf import compat
from byol_tf.models.construction import is_graph
from byol_tf.models.inference import split_inference_model

_POOLING = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)


def map_inference_model(inference: keras.Model) -> keras.Model:
    """Returns an inference model without the encoder's global pooling.

    Args:
        inference: an inference model (see `inference.py`), of an encoder that ends in the global
            pooling of a map; its layers are shared.

    Returns:
        A model from uint8 or uint16 images `[N, H, W, channels]` of any size to float32 maps
        `[N, h, w, c]` of the centred square of each.

    Raises:
        ValueError: if the encoder ends in something else.
    """
    _, normalise, encoder = split_inference_model(inference)
    features = _before_pooling(encoder)(normalise.output, training=False)
    outputs = keras.layers.Activation("linear", dtype="float32", name="float32")(features)
    return keras.Model(inference.inputs[0], outputs, name=inference.name)


def _before_pooling(encoder: keras.Model) -> keras.Model:
    """Returns the encoder up to the input of its last layer, which has to pool a map."""
    last = "code that isn't known, as it's a subclassed model"
    if is_graph(encoder):
        (call,) = [
            each
            for each in compat.graph_calls(encoder)
            if any(tensor is encoder.outputs[0] for tensor in each.output_tensors)
        ]
        layer, (features, *_) = call.operation, call.input_tensors
        last = f"{type(layer).__name__} of {list(features.shape)}"
        if isinstance(layer, keras.Model):
            features = _before_pooling(layer)(features)
        if isinstance(layer, (keras.Model, *_POOLING)):
            return keras.Model(encoder.inputs[0], features, name=encoder.name)
    raise ValueError(
        "expected an encoder whose last layer is the global pooling of a map [N, h, w, c]; "
        f'"{encoder.name}" ends in {last}'
    )
