"""`python -m benchmarks.view_differences`: how far the engines' views lie from each other.

The same images and random parameters go through each engine, and through `fused` with `exact` too;
what differs is their mean and largest absolute difference in [0, 1] and the fraction of pixel
values that are more than 1/255 apart, from those of `keras`. The images are tiles of scikit-learn's
two photographs. Also the mean area of random crops here and where a box that doesn't fit is drawn
again up to ten times, as in torchvision and Kornia.
"""

import argparse
import json
import math

from byol_tf.devices import prepare_environment

prepare_environment()

import numpy as np
import tensorflow as tf

from benchmarks.views import photo_tiles
from pipelines.policy import ViewPolicy, preset
from pipelines.views.fused import FusedViews
from pipelines.views.host import HostViews
from pipelines.views.host_crops import resize_crop
from pipelines.views.random_params import crop_boxes, pixel_boxes, sample_params

_SEED = 0
_DRAWS = 200_000
_TRIES = 10


def _params(count: int) -> tf.Tensor:
    return sample_params(_SEED, 1, tf.constant(0, tf.int64), tf.range(count, dtype=tf.int64))


def _fused(policy: ViewPolicy, size: int, images: np.ndarray, exact: bool) -> np.ndarray:
    layer = FusedViews(policy, size, 0, (0.0,) * 3, (1.0,) * 3, exact=exact)
    return layer(images, _params(len(images))).numpy()


def _difference(views: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    difference = np.abs(views - expected)
    return {
        "mean": float(f"{difference.mean():.2g}"),
        "max": float(f"{difference.max():.2g}"),
        "more_than_1_255": round(float((difference > 1.0 / 255.0).mean()), 3),
    }


def one_size(policy: ViewPolicy, side: int, size: int, count: int) -> dict[str, dict]:
    """Compares the engines on images of one size."""
    images, params = photo_tiles(count, side), _params(count)[:, 0]
    expected = HostViews(policy, size)(tf.constant(images), params).numpy()
    keras_cv = HostViews(policy, size, "keras_cv")(tf.constant(images), params).numpy()
    return {"keras_cv": _difference(keras_cv, expected)} | {
        name: _difference(_fused(policy, size, images, exact), expected)
        for name, exact in (("exact", True), ("linear", False))
    }


def several_sizes(policy: ViewPolicy, side: int, size: int, count: int) -> dict[str, dict]:
    """Compares the engines on photos that are cropped one by one, as those of several sizes."""
    images, params = photo_tiles(count, side), _params(count)[:, 0]
    engine = HostViews(policy, size)
    resized, crops = [], []
    for number, image in enumerate(images):
        row = params[number : number + 1]
        y1, x1, y2, x2 = pixel_boxes(policy, row, tf.constant(side), tf.constant(side))[0].numpy()
        resized.append(engine.resize_one(tf.constant(image[y1:y2, x1:x2]), row))
        crops.append(resize_crop(image[y1:y2, x1:x2], size).numpy())
    expected = engine.augment(tf.stack(resized), params).numpy()
    return {
        name: _difference(_fused(policy.without_crop(), size, np.stack(crops), exact), expected)
        for name, exact in (("exact", True), ("linear", False))
    }


def crop_areas(crop_area: tuple[float, float], height: int, width: int) -> dict[str, float]:
    """Returns mean areas of crops: cut to the image, and the first of ten boxes that fits."""
    params = np.random.default_rng(_SEED).random((_DRAWS, 48), np.float32)
    policy = ViewPolicy(crop_area=crop_area)
    y1, x1, y2, x2 = crop_boxes(policy, tf.constant(params), height, width).numpy().T
    rng = np.random.default_rng(_SEED)
    area = rng.uniform(*crop_area, (_DRAWS, _TRIES)) * height * width
    low, high = (math.log(limit) for limit in policy.crop_aspect)
    aspect = np.exp(rng.uniform(low, high, area.shape))
    wide, high_enough = np.sqrt(area * aspect), np.sqrt(area / aspect)
    fits = (wide <= width) & (high_enough <= height)
    first = np.take_along_axis(area, fits.argmax(axis=1)[:, None], axis=1)[:, 0]
    # with none of ten: the largest centred box of an aspect within the range
    aspect = np.clip(width / height, *policy.crop_aspect)
    fallback = min(width, height * aspect) * min(height, width / aspect)
    redrawn = np.where(fits.any(axis=1), first, fallback) / (height * width)
    return {
        "cut_to_the_image": round(float(((y2 - y1) * (x2 - x1)).mean()), 3),
        "first_of_ten": round(float(redrawn.mean()), 3),
    }


def measure(count: int, size: int) -> dict:
    """Returns all differences, by preset and by size of the images."""
    off = {
        f"{name}_probability": 0.0 for name in ("jitter", "grayscale", "blur", "solarize", "flip")
    }
    policies = {
        "crop alone": preset("byol")[0].model_copy(update=off),
        "byol": preset("byol")[0],
        "simclr": preset("simclr")[0],
    }
    return {
        "views": {
            name: {
                f"{size} px": one_size(policy, size, size, count),
                "224 px": one_size(policy, 224, size, count),
                "224 px, one by one": several_sizes(policy, 224, size, count),
            }
            for name, policy in policies.items()
        },
        "crop_areas": {
            f"{low:g} to 1, {height} x {width}": crop_areas((low, 1.0), height, width)
            for low in (0.08, 0.2)
            for height, width in ((96, 96), (375, 500))
        },
    }


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.view_differences", description=__doc__
    )
    parser.add_argument("--count", type=int, default=128, help="images")
    parser.add_argument("--size", type=int, default=96, help="side of a view in pixels")
    options = parser.parse_args()
    tf.get_logger().setLevel("ERROR")  # each policy is traced anew, of which TensorFlow would warn
    print(json.dumps(measure(options.count, options.size)))


if __name__ == "__main__":
    main()
