"""`python -m benchmarks.serving`: an exported SavedModel's two signatures beside the bare Keras
call, single photos and batches.

Photos are JPEGs of one size from scikit-learn's two. The bare call is the Keras model that was
exported, as one compiled function, on the same pixels; of JPEGs, on what TensorFlow's decoder makes
of each, one after the other. Sides take turns in one process; a ratio is the median of the rounds,
and above 1 where the SavedModel takes longer. What a server's network and queue add is not in it.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from byol_tf.devices import prepare_environment

prepare_environment()

import keras
import numpy as np
import tensorflow as tf

from benchmarks.turns import median_ratio, take_turns, timed
from byol_tf import build_encoder
from byol_tf.export.saved_model import write_saved_model
from byol_tf.models.inference import inference_model, plain_encoder
from byol_tf.runs.files import SAVED_MODEL_VERSION

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _jpegs(height: int, width: int, count: int) -> list[bytes]:
    from sklearn.datasets import load_sample_images

    photos = [
        tf.cast(tf.image.resize(photo, (height, width), antialias=True), tf.uint8)
        for photo in load_sample_images().images
    ]
    return [tf.io.encode_jpeg(photos[number % len(photos)]).numpy() for number in range(count)]


def _pairs(model: keras.Model, saved, files: list[bytes]) -> dict[str, Callable[[], tf.Tensor]]:
    """Name -> a call on all the files, or on their pixels: the SavedModel's and the bare one of
    each kind."""
    bare = tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)],
    )
    encoded = tf.constant(files)

    def pixels() -> tf.Tensor:
        return tf.stack([tf.io.decode_image(file, 3, expand_animations=False) for file in files])

    images = pixels()
    return {
        "pixels": lambda: saved.serve(images),
        "bare_pixels": lambda: bare(images),
        "bytes": lambda: saved.serve_bytes(encoded),
        "bare_bytes": lambda: bare(pixels()),
    }


def measure(
    encoder: str,
    size: int,
    height: int,
    width: int,
    batches: list[int],
    rounds: int,
    seconds: float,
) -> dict:
    """Images a second and milliseconds a call of all sides at each batch size, and the ratios."""
    keras.utils.set_random_seed(0)
    model = inference_model(plain_encoder(build_encoder(encoder, size)), size, _MEAN, _STD)
    result = {
        "benchmark": "serving",
        "encoder": encoder,
        "size": size,
        "jpeg": {"height": height, "width": width},
    }
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(model, Path(folder) / "encoder")
        saved = tf.saved_model.load(str(Path(folder) / "encoder" / SAVED_MODEL_VERSION))
        photos = _jpegs(height, width, max(batches))
        for batch in batches:
            calls = _pairs(model, saved, photos[:batch])
            largest = max(
                float(np.abs(calls[name]() - calls[f"bare_{name}"]()).max())
                for name in ("pixels", "bytes")
            )
            sides = {
                name: timed(lambda count, call=call: [call().numpy() for _ in range(count)])
                for name, call in calls.items()
            }
            speeds = take_turns(sides, rounds, seconds=seconds)
            result[f"batch_{batch}"] = {
                "images_per_second": {
                    name: round(batch * statistics.median(speed), 1)
                    for name, speed in speeds.items()
                },
                "milliseconds_a_call": {
                    name: round(1e3 / statistics.median(speed), 2) for name, speed in speeds.items()
                },
                "pixels_take_times_bare": median_ratio(speeds, "bare_pixels", "pixels"),
                "bytes_take_times_bare": median_ratio(speeds, "bare_bytes", "bytes"),
                "largest_difference": largest,
            }
    return result


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--height", type=int, default=400)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
