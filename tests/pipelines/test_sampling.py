"""Order of images: each once an epoch, for any number of workers and images."""

import numpy as np
import psutil
import pytest
import tensorflow as tf

from pipelines.sampling import Order


def step_of(number: int) -> tf.Tensor:
    return tf.constant(number, tf.int64)


def indices_of(step: int, seed: int = 0, count: int = 23, batch_size: int = 4) -> list[int]:
    return Order(count, batch_size, seed).at(step_of(step))[2].numpy().tolist()


class TestOneWorker:
    def epoch(self, number: int, seed: int = 0) -> list[int]:
        return [
            index for step in range(5 * number, 5 * number + 5) for index in indices_of(step, seed)
        ]

    def test_images_that_fill_batches_come_once_an_epoch(self):
        for number in range(4):
            seen = self.epoch(number)
            assert len(set(seen)) == len(seen) == 20
            assert set(seen) <= set(range(23))

    def test_epochs_and_seeds_differ_in_order_and_remainder(self):
        epochs = [self.epoch(number) for number in range(12)] + [self.epoch(0, seed=1)]
        assert len({tuple(epoch) for epoch in epochs}) == 13
        assert len({frozenset(epoch) for epoch in epochs}) > 8
        assert set().union(*epochs) == set(range(23))
        assert self.epoch(0) == self.epoch(0)

    def test_remainder_is_what_fills_no_batch(self):
        for number in range(4):
            left = Order(23, 4, 0).remainder(number).tolist()
            assert sorted([*left, *self.epoch(number)]) == list(range(23))
        assert Order(24, 4, 0).remainder(0).tolist() == []

    def test_images_are_equally_likely_at_first_position(self):
        first = np.array([indices_of(5 * number)[0] for number in range(460)])
        counts = np.bincount(first, minlength=23)
        chi_square = ((counts - 20.0) ** 2 / 20.0).sum()
        assert chi_square < 55.0  # 22 degrees of freedom, 1 in 10,000

    def test_positions_count_images_of_the_epoch(self):
        epoch, positions, _ = Order(23, 4, 0).at(step_of(13))
        assert (int(epoch), positions.numpy().tolist()) == (2, [12, 13, 14, 15])

    def test_batch_may_hold_all_images(self):
        assert sorted(indices_of(3, count=4)) == [0, 1, 2, 3]
        assert indices_of(3, count=1, batch_size=1) == [0]


def epoch_read_by(workers: int, count: int, batch_size: int, epoch: int = 0) -> np.ndarray:
    """Returns how often each image is read in an epoch, as uint8 `[count]`."""
    times = np.zeros(count, np.uint8)
    steps = count // batch_size
    for worker in range(workers):
        order = Order(count, batch_size, 0, worker, workers)
        for step in range(epoch * steps, (epoch + 1) * steps):
            times[order.at(step_of(step))[2].numpy()] += (
                1  # an image twice in one part would be missing from the sum
            )
    return times


class TestManyWorkers:
    def test_1024_workers_read_each_image_once_an_epoch(self):
        times = epoch_read_by(1024, count=10_007, batch_size=4096, epoch=3)
        assert times.max() == 1
        assert times.sum() == 2 * 4096  # all but the remainder that fills no batch

    @pytest.mark.long
    def test_1024_workers_share_a_billion_images(self):
        """Takes minutes. A worker needs memory for its part of a batch only."""
        count, batch_size = 10**9, 2**24
        before = psutil.Process().memory_info().rss
        times = epoch_read_by(1024, count, batch_size)
        assert (
            psutil.Process().memory_info().rss - before < count + 2**28
        )  # the count of each image is this test's own
        assert times.max() == 1
        assert times.sum(dtype=np.int64) == count // batch_size * batch_size

    @pytest.mark.parametrize(("before", "after"), [(1, 8), (8, 1), (8, 512)])
    def test_order_is_independent_of_number_of_workers(self, before, after):
        def batch(workers, step):
            parts = [
                Order(10**9, 4096, 7, worker, workers).at(step_of(step))
                for worker in range(workers)
            ]
            return [np.concatenate([part[k] for part in parts]) for k in (1, 2)]

        for one, other in zip(batch(before, 300_000), batch(after, 300_000), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_last_step_of_huge_set_needs_no_memory(self):
        """Nothing is stored that grows with the images or the steps."""
        epoch, positions, indices = Order(10**12, 4096, 0, 1023, 1024).at(step_of(10**10))
        assert int(epoch) == 10**10 // (10**12 // 4096)
        assert positions.shape == indices.shape == (4,)
        assert 0 <= int(tf.reduce_min(indices)) <= int(tf.reduce_max(indices)) < 10**12
