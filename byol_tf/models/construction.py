"""Checks and copies the networks that a BYOL model is made of."""

import keras


def output_width(network: keras.Model, role: str) -> int:
    """Returns the d of a network's output `[N, d]`.

    Args:
        network: a built model.
        role: what an error calls it, such as `encoder`.

    Raises:
        ValueError: if the network isn't built or its output has another shape.
    """
    if not getattr(network, "built", False) or not network.weights:
        raise ValueError(
            f'{role}: expected a built keras.Model; received "{getattr(network, "name", network)}",'
            " which has no weights yet. Call it on "
            f"{'an image' if role == 'encoder' else 'its input'} first"
        )
    shape = getattr(network(_symbolic_input(network)), "shape", None)
    if shape is None or len(shape) != 2 or shape[-1] is None:
        raise ValueError(
            f'{role}: expected output of shape [N, d]; received {shape} from "{network.name}". End '
            "it with pooling"
        )
    return shape[-1]


def check_input_width(network: keras.Model, width: int, role: str, source: str) -> None:
    """Raises `ValueError` unless a built network takes `[N, width]`, the output of `source`."""
    output_width(network, role)
    shape = _symbolic_input(network).shape
    if shape[1:] != (width,):
        raise ValueError(
            f"{role}: expected a model that takes [N, {width}], the output of the {source}; "
            f"received one for {shape}"
        )


def copy_network(network: keras.Model, role: str) -> keras.Model:
    """Returns the same network with weights of its own, equal now (`clone_model` copies none).

    Raises:
        ValueError: if Keras can't copy it.
    """
    try:
        copy = keras.models.clone_model(network)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"{role}: expected a model that can be copied: functional, Sequential, or with its "
            f'arguments in get_config(); Keras can\'t copy "{network.name}"'
        ) from error
    copy(_symbolic_input(network))  # a subclassed model gets its weights when it is called
    copy.set_weights(network.get_weights())
    return copy


def _symbolic_input(network: keras.Model) -> keras.KerasTensor:
    """Returns an input of the shape that the network was built for.

    A subclassed model has no `input_shape`.
    """
    if hasattr(network, "input_shape"):
        return keras.Input(network.input_shape[1:])
    return keras.Input(network.get_build_config()["input_shape"][1:])
