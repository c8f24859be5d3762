"""Reads batches of a run and records which images and which views they have."""

import hashlib
import json
import time

import numpy as np
import tensorflow as tf

from pipelines.batches import crop_batches
from pipelines.policy import preset
from pipelines.sources.images import LazyImages


def image(index: int) -> np.ndarray:
    """Returns an image that shows its index in every crop, and the crop's position.

    uint8 `[16, 16 to 19, 3]`: red and green are the index, blue is the position of the pixel.
    """
    pixels = np.empty((16, 16 + index % 4, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = index % 256, index // 256
    pixels[..., 2] = np.arange(pixels.shape[0])[:, None] * 13 + np.arange(pixels.shape[1])
    return pixels


def read(
    record: str,
    count: int,
    batch_size: int,
    first: int,
    last: int,
    threads: int,
    worker: int = 0,
    workers: int = 1,
    shift: int = 0,
) -> None:
    """Reads steps of a run and records a line for each image.

    A line is `[step, row, index, digest of its two crops]`; a step's lines are written at once. The
    first line of all is the seconds until the first batch.

    Args:
        record: path of the file that lines are appended to.
        count: images in the set.
        batch_size: images a step, over all workers.
        first: step to start at.
        last: step to stop before.
        threads: of TensorFlow.
        worker: index of this worker.
        workers: number of workers.
        shift: steps by which reading starts too late, a fault that the tests have to detect.
    """
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    policies = preset("byol")
    images = LazyImages(count, image)
    start = time.perf_counter()
    batches = crop_batches(images, policies, 8, batch_size, 5, first + shift, worker, workers)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    with open(record, "a") as file:
        for step, (*crops, _) in zip(
            range(first, last), batches.with_options(options), strict=False
        ):
            if step == first:
                file.write(json.dumps(time.perf_counter() - start) + "\n")
            lines = []
            for row, views in enumerate(zip(*(crop.numpy() for crop in crops), strict=True)):
                red, green = (int(np.median(views[0][..., channel])) for channel in range(2))
                digest = hashlib.sha256(b"".join(view.tobytes() for view in views)).hexdigest()[:16]
                lines.append(
                    json.dumps(
                        [step, worker * batch_size // workers + row, red + 256 * green, digest]
                    )
                    + "\n"
                )
            file.write("".join(lines))
            file.flush()
