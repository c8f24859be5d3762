"""torchvision's ResNet in float64 NumPy, with PyTorch's padding, and random state dicts."""

import numpy as np

from byol_tf.constants import RESNETS
from byol_tf.models.networks.resnet import INNER_WIDTHS, TWO_LAYER_BLOCKS


def state_dict(name="resnet18", width=1 / 16, classes=10, seed=0):
    """Returns random float32 tensors by torchvision's names, moving statistics included.

    Their scale keeps representations near 1.
    """
    rng, tensors = np.random.default_rng(seed), {}

    def conv(module, outputs, inputs, kernel):
        tensors[f"{module}.weight"] = rng.normal(
            0.0, np.sqrt(2.0 / (inputs * kernel**2)), (outputs, inputs, kernel, kernel)
        )

    def norm(module, channels, gain=1.0):
        tensors[f"{module}.weight"] = gain * rng.uniform(0.5, 1.5, channels)
        tensors[f"{module}.bias"] = rng.normal(0.0, 0.1, channels)
        tensors[f"{module}.running_mean"] = rng.normal(0.0, 0.1, channels)
        tensors[f"{module}.running_var"] = rng.uniform(0.5, 1.5, channels)
        tensors[f"{module}.num_batches_tracked"] = np.array(1000, np.int64)

    first = round(64 * width)
    conv("conv1", first, 3, 7)
    norm("bn1", first)
    channels = first
    for group, blocks in enumerate(RESNETS[name]):
        for block in range(blocks):
            module, base = f"layer{group + 1}.{block}", first * 2**group
            inner = base * INNER_WIDTHS.get(name, 1)
            outputs = base if name in TWO_LAYER_BLOCKS else 4 * base
            kernels = (3, 3) if name in TWO_LAYER_BLOCKS else (1, 3, 1)
            sides = [channels, *[inner] * (len(kernels) - 1), outputs]
            for number, kernel in enumerate(kernels, start=1):
                conv(f"{module}.conv{number}", sides[number], sides[number - 1], kernel)
                norm(f"{module}.bn{number}", sides[number], 0.3 if number == len(kernels) else 1.0)
            if block == 0 and (group > 0 or channels != outputs):
                conv(f"{module}.downsample.0", outputs, channels, 1)
                norm(f"{module}.downsample.1", outputs)
            channels = outputs
    tensors["fc.weight"], tensors["fc.bias"] = (
        rng.normal(size=(classes, channels)),
        rng.normal(size=classes),
    )
    return {
        name: value if value.dtype == np.int64 else value.astype(np.float32)
        for name, value in tensors.items()
    }


def representations(tensors, images):
    """Returns float64 `[N, d]` for normalised images `[N, H, W, 3]`."""
    x = np.asarray(images, np.float64).transpose(0, 3, 1, 2)
    x = np.maximum(_norm(tensors, "bn1", _conv(tensors, "conv1", x, stride=2)), 0.0)
    x = _windows(np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf), 3, 2).max(
        (4, 5)
    )
    for group in range(1, 5):
        block = 0
        while f"layer{group}.{block}.conv1.weight" in tensors:
            x = _block(tensors, f"layer{group}.{block}", x, 2 if group > 1 and block == 0 else 1)
            block += 1
    return x.mean((2, 3))


def _block(tensors, module, x, stride):
    count = 3 if f"{module}.conv3.weight" in tensors else 2
    y = x
    for number in range(1, count + 1):
        # ResNet v1.5: of a bottleneck's convolutions the 3x3 one has the stride.
        strided = number == (2 if count == 3 else 1)
        y = _conv(tensors, f"{module}.conv{number}", y, stride if strided else 1)
        y = _norm(tensors, f"{module}.bn{number}", y)
        y = np.maximum(y, 0.0) if number < count else y
    if f"{module}.downsample.0.weight" in tensors:
        x = _norm(
            tensors, f"{module}.downsample.1", _conv(tensors, f"{module}.downsample.0", x, stride)
        )
    return np.maximum(x + y, 0.0)


def _conv(tensors, module, x, stride=1):
    kernel = tensors[f"{module}.weight"].astype(np.float64)
    side = kernel.shape[-1]
    padded = np.pad(x, [(0, 0), (0, 0), (side // 2, side // 2), (side // 2, side // 2)])
    return np.einsum("nchwij,ocij->nohw", _windows(padded, side, stride), kernel, optimize=True)


def _windows(x, side, stride):
    return np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(2, 3))[
        :, :, ::stride, ::stride
    ]


def _norm(tensors, module, x):
    weight, bias, mean, variance = (
        tensors[f"{module}.{leaf}"].astype(np.float64)[:, None, None]
        for leaf in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias
