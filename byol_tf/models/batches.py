"""Batches that a step gets: views made of them, and checks whose errors say what a batch is."""

import itertools
import re
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

_MARK = "byol_tf: "


def views_made_by(layers: Sequence[keras.layers.Layer], batch: object) -> list[tf.Tensor]:
    """Returns the views that layers make.

    Args:
        layers: one for each view, called with images and params.
        batch: `(images, params)`, or `(images1, images2, params)` with each view's own images. A
            None, as Keras' `train_on_batch` adds, is dropped.

    Raises:
        ValueError: for anything else.
    """
    parts = [part for part in batch if part is not None] if isinstance(batch, tuple) else []
    if len(parts) < 2:
        raise ValueError(
            "expected batches (images, params), as pipelines.batches.image_batches gives them, "
            f"since the model makes the views; received a {type(batch).__name__}"
        )
    *images, params = parts  # the same images for all views, or for each view its own
    return [
        make_view(view_images, params)
        for make_view, view_images in zip(layers, itertools.cycle(images))
    ]


def check_views(views: object, count: int, rank: int) -> list[tf.Tensor]:
    """Returns the views of a batch.

    Args:
        views: `[N, ...]` each, in a tuple or list. A None at its end, which Keras'
            `train_on_batch` adds, is dropped.
        count: of views.
        rank: of each, as the encoder takes it.

    Raises:
        ValueError: for anything else, and for views of several dtypes or numbers of images; where
            those aren't known at tracing, in the step.
    """
    if isinstance(views, tuple | list):
        views = [
            tf.convert_to_tensor(view) if isinstance(view, np.ndarray) else view
            for view in views
            if view is not None
        ]
        ranks = {getattr(getattr(view, "shape", None), "rank", None) for view in views}
        if len(views) == count and ranks == {rank}:
            return _same_images(views)
    names = ", ".join(f"view{index + 1}" for index in range(count))
    raise ValueError(
        f"expected batches of {count} views of each image, ({names}), tensors [N, H, W, 3]; "
        f"received {_described(views)}"
    )


def _same_images(views: list[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the views, after a check that they have one dtype and as many images each."""
    if len({view.dtype for view in views}) > 1:
        dtypes = ", ".join(view.dtype.name for view in views)
        raise ValueError(f"expected views of one dtype; received {dtypes}")
    expected = "expected as many images in each view, as they are views of the same ones; received"
    sizes = [view.shape[0] for view in views]
    if None not in sizes:
        if len(set(sizes)) > 1:
            raise ValueError(f"{expected} {', '.join(map(str, sizes))}")
        return views
    if len(views) == 1:
        return views
    counts = [tf.shape(view)[0] for view in views]
    equal = tf.reduce_all([count == counts[0] for count in counts[1:]])
    return only_if(equal, views, f"{expected} another number than the first view's:", counts[0])


def _described(data: object) -> str:
    if isinstance(data, tuple | list):
        return f"{len(data)}: ({', '.join(map(_described, data))})"
    shape = getattr(data, "shape", None)
    if shape is None:
        return f"a {type(data).__name__}"
    if shape.rank is None:
        return "a tensor of unknown shape"
    return f"a tensor [{', '.join('N' if size is None else str(size) for size in shape)}]"


def equal_shares(views: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the views, after a check that all replicas have as many images.

    A loss is a mean over a replica's images, and a gradient the mean of those of all replicas. To
    be called in replica context. Without a size known at tracing, a step checks its batch first.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1 or views[0].shape[0] is not None:
        return list(views)
    own = tf.cast(tf.shape(views[0])[0], tf.float32)
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, own)
    return only_if(
        own * replicas == total,
        views,
        f"expected batches that {replicas} replicas divide, as by batch(n, drop_remainder=True); "
        "received images:",
        total,
    )


def micro_batches(views: Sequence[tf.Tensor], count: int) -> list[tf.Tensor]:
    """Returns the views `[N, ...]` as `[count, N / count, ...]`.

    Raises:
        ValueError: if `count` doesn't divide N; where N isn't known at tracing, in the step.
    """
    size = views[0].shape[0]
    expected = "gradient_accumulation_steps: expected a divisor of the "
    if size is None:
        size = tf.shape(views[0])[0]
        text = f"{expected}images of a replica's batch, as by batch(n, drop_remainder=True)"
        views = only_if(size % count == 0, views, f"{text}; received {count}, and images:", size)
    elif size % count:
        raise ValueError(f"{expected}{size} images of a replica's batch; received {count}")
    return [tf.reshape(view, (count, -1, *view.shape[1:])) for view in views]


def only_if(
    condition: tf.Tensor, tensors: Sequence[tf.Tensor], text: str, number: tf.Tensor
) -> list[tf.Tensor]:
    """Returns tensors; the step fails before it uses them where a condition is false.

    Args:
        condition: a boolean scalar.
        tensors: of any shape.
        text: sentence of the error, which `refusal` finds; it ends before the number.
        number: an integer scalar.

    Raises:
        ValueError: if it runs eagerly and the condition is false.
    """
    if tf.executing_eagerly():
        if not condition:
            raise ValueError(f"{text} {int(number)}")
        return list(tensors)
    check = tf.debugging.Assert(condition, [_MARK + text, tf.cast(number, tf.int32)])
    with tf.control_dependencies([check]):
        return [tf.identity(tensor) for tensor in tensors]


def refusal(error: tf.errors.InvalidArgumentError) -> str | None:
    """Returns the sentence of a check of this module that failed in a step, else None."""
    found = re.search(rf"\[{_MARK}(.*?)\] \[(\d+)\]", str(error), re.DOTALL)
    return found and f"{found[1]} {found[2]}".replace("\\'", "'")
