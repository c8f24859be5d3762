"""Order of images that are read in blocks: each once an epoch, by workers that share no block."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.sampling import Order
from pipelines.sources.blocks import Blocks


def unequal_blocks(count: int, seed: int = 1, open: int = 64) -> Blocks:
    sizes = np.random.default_rng(seed).integers(1, 30, count)
    return Blocks(np.repeat(np.arange(count), sizes)[:count], open)


def batches(order: Order, steps) -> list[np.ndarray]:
    return [order.at(tf.constant(step, tf.int64))[2].numpy() for step in steps]


@pytest.mark.parametrize(
    ("count", "batch", "open"), [(1003, 32, 64), (1003, 25, 64), (40, 16, 4), (9, 8, 1)]
)
def test_each_image_comes_once_an_epoch(count, batch, open):
    order = Order(count, batch, 0, blocks=unequal_blocks(count, open=open))
    steps, epochs = count // batch, []
    for epoch in range(3):
        read = np.concatenate(batches(order, range(epoch * steps, (epoch + 1) * steps)))
        epochs.append([*read.tolist(), *order.remainder(epoch).tolist()])
        assert sorted(epochs[-1]) == list(range(count))
    assert epochs[0] != epochs[1] != epochs[2]


def test_order_is_a_function_of_seed_epoch_and_position():
    blocks = unequal_blocks(1003)
    expected = batches(Order(1003, 32, 5, blocks=blocks), range(70))
    for step in (69, 3, 31, 30, 62):  # of a new object each, in any order
        (received,) = batches(Order(1003, 32, 5, blocks=blocks), [step])
        np.testing.assert_array_equal(received, expected[step])
    assert not np.array_equal(batches(Order(1003, 32, 6, blocks=blocks), [0])[0], expected[0])


@pytest.mark.parametrize("workers", [2, 16])
def test_workers_read_equal_parts_and_hardly_a_block_twice(workers):
    blocks, steps = unequal_blocks(3000), range(93)
    whole = batches(Order(3000, 32, 0, blocks=blocks), steps)
    parts = [
        batches(Order(3000, 32, 0, worker, workers, blocks), steps) for worker in range(workers)
    ]
    for step in steps:
        np.testing.assert_array_equal(np.concatenate([part[step] for part in parts]), whole[step])
    read = sum(len(np.unique(blocks.ids[np.concatenate(part)])) for part in parts)
    assert read < len(np.unique(blocks.ids)) + 32  # those that are cut between two lanes


def test_images_of_a_set_sorted_by_class_are_mixed():
    """Ten classes, one after the other; a block has images of one class."""
    blocks = Blocks(np.arange(20_000) // 40)
    order, labels = Order(20_000, 64, 0, blocks=blocks), np.arange(20_000) // 2_000
    counts = [np.bincount(labels[batch], minlength=10) for batch in batches(order, range(312))]
    assert np.std(counts) < 1.4 * np.sqrt(64 * 0.1 * 0.9)  # of a full permutation 1.0 times that
    neighbours = [len(np.unique(blocks.ids[batch])) for batch in batches(order, range(312))]
    assert np.mean(neighbours) > 35


@pytest.mark.parametrize("since", [0, 13, 45])
@pytest.mark.parametrize("worker", [0, 3])
def test_what_is_opened_is_what_is_read_later_and_bounded(since, worker):
    blocks = Blocks(np.arange(4003) // 20)
    order = Order(4003, 32, 0, worker, 4, blocks)
    coming: set[int] = set()
    most = 0
    for step in range(since, 2 * (4003 // 32)):
        opened = order.newly_opened(step, since).tolist()
        assert not coming.intersection(opened) or step >= 4003 // 32
        coming.update(opened)
        most = max(most, len(coming))
        read = set(batches(order, [step])[0].tolist())
        assert read <= coming
        coming -= read
    assert coming == set()
    assert most <= 64 / 4 * 20 + 20
