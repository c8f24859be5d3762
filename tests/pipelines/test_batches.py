"""Streams of batches: their images, their order, and that they can begin at any step."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.batches import crop_batches, image_batches, view_batches
from pipelines.policy import ViewPolicy, preset
from pipelines.sampling import Order
from pipelines.sources import Images

_SHAPE = (10, 12, 3)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
CROP_ONLY = ViewPolicy(
    **dict.fromkeys(
        ("flip_probability", "jitter_probability", "grayscale_probability", "blur_probability"), 0.0
    ),
    crop_area=(0.2, 1.0),
)
PLAIN = (ViewPolicy(saturation=0.0, hue=0.0, grayscale_probability=0.0, blur_probability=0.0),) * 2
"""Crop, flip, brightness and contrast alone, whose graph is soon built."""


class Coloured(Images):
    """Images of one colour, 10 i in every channel; with `sizes`, each of another size."""

    def __init__(self, count: int, sizes: bool = False):
        self.count, self.sizes = count, sizes
        self.labels = None
        self.shape = None if sizes else _SHAPE

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        shape = (10 + index, 12 + index // 2, 3) if self.sizes else _SHAPE
        return np.full(shape, 10 * index, np.uint8)


class Noise(Coloured):
    """Images of noise, seeded by their index."""

    def __getitem__(self, index: int) -> np.ndarray:
        return np.random.default_rng(int(index)).integers(
            0, 256, super().__getitem__(index).shape, dtype=np.uint8
        )


def stream(
    images: Images,
    policies=(CROP_ONLY, CROP_ONLY),
    batch_size: int = 4,
    seed: int = 0,
    first_step: int = 0,
    size: int = 8,
):
    return view_batches(images, policies, size, batch_size, seed, MEAN, STD, first_step)


def taken(dataset: tf.data.Dataset, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(dataset.take(count).as_numpy_iterator())


def colours(views: np.ndarray) -> list[int]:
    """Returns the indices of the `Coloured` images that the views are of.

    Fails where a view isn't of one colour.
    """
    values = views * np.float32(STD) + np.float32(MEAN)
    np.testing.assert_allclose(
        values, np.broadcast_to(values[:, :1, :1, :1], values.shape), atol=1e-4
    )
    return np.rint(values[:, 0, 0, 0] * 25.5).astype(int).tolist()


def indices_of(step: int, seed: int = 0, count: int = 23, batch_size: int = 4) -> list[int]:
    return Order(count, batch_size, seed).at(tf.constant(step, tf.int64))[2].numpy().tolist()


@pytest.mark.parametrize("sizes", [False, True])
class TestStream:
    def test_both_views_are_of_the_image_in_order(self, sizes):
        for step, (first, second) in enumerate(taken(stream(Coloured(23, sizes)), 7)):
            assert colours(first) == colours(second) == indices_of(step)

    def test_stream_begins_at_any_step_with_same_bits(self, sizes):
        def views(first_step: int) -> list[tuple[np.ndarray, np.ndarray]]:
            made = stream(Noise(11, sizes), PLAIN, seed=5, size=20, first_step=first_step)
            return taken(made, 8 - first_step)

        whole = views(0)
        for first_step in (1, 6):
            for expected, received in zip(whole[first_step:], views(first_step), strict=True):
                np.testing.assert_array_equal(received[0], expected[0])
                np.testing.assert_array_equal(received[1], expected[1])

    def test_views_differ_by_number_seed_and_epoch(self, sizes):
        images = Noise(4, sizes)
        (first, second), (later, _) = taken(stream(images, PLAIN), 2)
        (other, _), _ = taken(stream(images, PLAIN, seed=1), 2)
        row = {index: position for position, index in enumerate(indices_of(0, count=4))}
        for step, seed, batch in ((0, 0, second), (1, 0, later), (0, 1, other)):
            for position, index in enumerate(indices_of(step, seed, count=4)):
                assert np.abs(batch[position] - first[row[index]]).mean() > 0.05

    def test_normalisation_is_the_last_operation(self, sizes):
        first, second = taken(stream(Noise(4, sizes), preset("byol")), 1)[0]
        for views in (first, second):
            assert views.dtype == np.float32
            assert views.shape == (4, 8, 8, 3)
            assert np.isfinite(views).all()
            low, high = (0.0 - np.array(MEAN)) / STD, (1.0 - np.array(MEAN)) / STD
            assert (views.min(axis=(0, 1, 2)) >= low - 1e-5).all()
            assert (views.max(axis=(0, 1, 2)) <= high + 1e-5).all()
        # The first view of `none` is the image itself, so its normalisation can be undone to the
        # pixel.
        image = Coloured(1, sizes)[0]
        (black, _) = taken(stream(Coloured(1, sizes), preset("none"), batch_size=1), 1)[0]
        np.testing.assert_allclose(black[0, 0, 0], (image[0, 0] / 255.0 - MEAN) / STD, atol=1e-6)

    def test_fewer_images_than_a_batch_are_an_error(self, sizes):
        with pytest.raises(
            ValueError, match="expected at most the number of images, 3; received 4"
        ):
            stream(Coloured(3, sizes))


class TestWorkers:
    """Batches of several workers, which together are the batch of a single one."""

    def joined(self, make, workers: int) -> list[tuple[np.ndarray, ...]]:
        """Returns seven batches from step 3 on, concatenated from the workers' parts.

        They span two ends of an epoch.
        """
        shards = [
            taken(make(first_step=3, worker=worker, workers=workers), 7)
            for worker in range(workers)
        ]
        assert {len(part) for shard in shards for batch in shard for part in batch} == {
            8 // workers
        }
        return [
            tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))
            for batches in zip(*shards, strict=True)
        ]

    def check(self, make, workers: int):
        for batch, whole in zip(
            self.joined(make, workers), taken(make(first_step=3), 7), strict=True
        ):
            for received, expected in zip(batch, whole, strict=True):
                # Float kernels round differently at the end of a batch.
                np.testing.assert_allclose(
                    received, expected, rtol=0, atol=0 if received.dtype.kind in "iu" else 1e-5
                )

    @pytest.mark.parametrize("workers", [1, 2, 4])
    def test_worker_images_and_parameters_make_up_the_batch(self, workers):
        self.check(lambda **where: image_batches(Noise(23), 8, 5, **where), workers)

    @pytest.mark.parametrize("sizes", [pytest.param(False, marks=pytest.mark.long), True])
    def test_worker_views_make_up_the_batch(self, sizes):
        self.check(
            lambda **where: view_batches(Noise(23, sizes), PLAIN, 8, 8, 5, MEAN, STD, **where),
            2,
        )

    def test_worker_crops_make_up_the_batch(self):
        self.check(lambda **where: crop_batches(Noise(23, True), PLAIN, 8, 8, 5, **where), 2)

    def test_worker_reads_its_own_images_only(self):
        class Read(Coloured):
            def __getitem__(self, index):
                read.append(int(index))
                return super().__getitem__(index)

        for worker in (0, 1):
            read = []
            taken(image_batches(Read(23), 4, 0, worker=worker, workers=2), 3)
            ahead = [
                index
                for step in range(5 * 23)
                for index in indices_of(step)[2 * worker : 2 * worker + 2]
            ]
            assert len(read) >= 6
            assert sorted(read) == sorted(ahead[: len(read)])

    @pytest.mark.parametrize(
        ("where", "message"),
        [
            ({"workers": 3}, r"workers: expected a divisor of batch_size \(4\); received 3"),
            ({"workers": 0}, r"workers: expected a divisor of batch_size \(4\); received 0"),
            (
                {"worker": 2, "workers": 2},
                "worker: expected a number from 0 to 1, as there are 2 workers; received 2",
            ),
            (
                {"worker": -1},
                "worker: expected a number from 0 to 0, as there are 1 workers; received -1",
            ),
        ],
    )
    def test_invalid_workers_are_an_error(self, where, message):
        with pytest.raises(ValueError, match=message):
            image_batches(Noise(23), 4, 0, **where)
        with pytest.raises(ValueError, match=message):
            view_batches(Noise(23), preset("none"), 8, 4, 0, MEAN, STD, **where)


def test_views_one_by_one_have_the_parameters_of_batches():
    """Views of images of one size are the same both ways, but for the resampling."""
    together, single = Coloured(8), Coloured(8)
    single.shape = None
    pairs = zip(
        taken(stream(together, preset("stl10"), seed=2), 3),
        taken(stream(single, preset("stl10"), seed=2), 3),
        strict=True,
    )
    for one, other in pairs:
        for views, same in zip(one, other, strict=True):
            np.testing.assert_allclose(views, same, atol=1e-3)


def test_unreadable_image_is_an_error():
    class Broken(Coloured):
        def __getitem__(self, index):
            raise OSError("the disk is gone")

    with pytest.raises(tf.errors.OpError, match="the disk is gone"):
        taken(stream(Broken(8)), 1)
