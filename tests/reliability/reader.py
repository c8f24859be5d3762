"""A process that reads batches of a run, and writes down which images it got and what the views of
each are."""

import hashlib
import json
import time

import numpy as np
import tensorflow as tf

from pipelines.batches import crop_batches
from pipelines.policy import preset
from pipelines.sources.images import LazyImages


def image(index: int) -> np.ndarray:
    """uint8 `[16, 16 to 19, 3]` that tells its index wherever it is cut out, in red and green; blue
    tells where that was."""
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
    """Reads steps `first` to `last` of a run; a line for each image: `[step, row, index, digest of
    its two crops]`, a step's lines at once.

    `shift`: begins so many steps later than it says, a fault. The first line is the seconds until
    the first batch.
    """
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    policies = preset("byol")
    images = LazyImages(count, image)
    began = time.perf_counter()
    batches = crop_batches(images, policies, 8, batch_size, 5, first + shift, worker, workers)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    with open(record, "a") as file:
        for step, (*crops, _) in zip(
            range(first, last), batches.with_options(options), strict=False
        ):
            if step == first:
                file.write(json.dumps(time.perf_counter() - began) + "\n")
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
