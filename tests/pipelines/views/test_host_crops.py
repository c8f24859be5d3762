"""Crops of photos of several sizes: equal to those of complete photos; views of both engines."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from pipelines.batches import crop_batches, view_batches
from pipelines.policy import ViewPolicy, preset
from pipelines.sources import Images, LazyImages, concatenated, open_source, subset, without_labels
from pipelines.sources.decoding import decode
from pipelines.sources.jpeg import plain_jpeg
from pipelines.views.fused import FusedViews
from pipelines.views.host_crops import read_crops, resize_crop
from pipelines.views.random_params import pixel_boxes, sample_params

PHOTOS = [Image.fromarray(photo) for photo in load_sample_images().images]
ZERO, ONE = (0.0,) * 3, (1.0,) * 3
_ORIENTATION = 0x0112


def encoded(image: Image.Image, image_format: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    return encoded(image, exif=exif)


def piece(number: int) -> Image.Image:
    """Returns a piece of a photo, of a size of its own."""
    return PHOTOS[number % 2].crop(
        (13 * number, 7 * number, 13 * number + 171 + 16 * number, 7 * number + 143 + 9 * number)
    )


PLAIN = {
    "colour": encoded(piece(0)),
    "quarter of the colour": encoded(piece(1), subsampling=2, quality=95),
    "half of the colour": encoded(piece(2), subsampling=1),
    "all of the colour": encoded(piece(3), subsampling=0),
    "progressive": encoded(piece(4), progressive=True),
    "coarse": encoded(piece(5), quality=20),
    "grey": encoded(piece(6).convert("L")),
}
OTHERS = {
    "turned": turned(piece(7)),
    "CMYK": encoded(piece(8).convert("CMYK")),
    "PNG": encoded(piece(9), "PNG"),
}
FILES = PLAIN | OTHERS
DAMAGED = {
    "no end": PLAIN["colour"][:-2],
    "zeros for an end": PLAIN["quarter of the colour"][:-2] + bytes(512),
    "a marker among the pixels": PLAIN["coarse"][:-9] + b"\xff\xe1\0\2" + PLAIN["coarse"][-9:],
}
"""JPEGs that Pillow reads, and some of them TensorFlow doesn't."""


def photos(files: list[bytes], partly: bool = True) -> Images:
    """Returns photos; with `partly` False every file is decoded completely, by Pillow."""
    return LazyImages(
        len(files),
        lambda index: decode(io.BytesIO(files[index]))[0],
        encoded=(lambda index: plain_jpeg(io.BytesIO(files[index]))) if partly else None,
    )


def mixed(partly: bool = True) -> Images:
    return photos(list(FILES.values()), partly)


class TestParts:
    @pytest.mark.parametrize("name", FILES | DAMAGED)
    def test_crops_equal_those_of_the_decoded_photo_bitwise(self, name):
        images = photos([(FILES | DAMAGED)[name]])
        policies = (ViewPolicy(crop_area=(0.01, 0.2)), ViewPolicy())
        crops = tf.function(
            lambda params: read_crops(images, tf.constant(0, tf.int64), policies, params),
            autograph=False,
        )
        whole = images[0]
        for position in range(20):
            params = sample_params(
                0, 2, tf.constant(0, tf.int64), tf.constant([position], tf.int64)
            )
            for view, (crop, policy) in enumerate(zip(crops(params), policies, strict=True)):
                y1, x1, y2, x2 = pixel_boxes(policy, params[:, view], *whole.shape[:2])[0].numpy()
                np.testing.assert_array_equal(crop.numpy(), whole[y1:y2, x1:x2])

    @pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2)])
    def test_box_of_tiny_image_holds_a_pixel(self, shape):
        for position in range(10):
            params = sample_params(
                0, 1, tf.constant(0, tf.int64), tf.constant([position], tf.int64)
            )[:, 0]
            y1, x1, y2, x2 = pixel_boxes(
                ViewPolicy(crop_area=(0.01, 0.02)), params, *map(tf.constant, shape)
            )[0].numpy()
            assert 0 <= y1 < y2 <= shape[0]
            assert 0 <= x1 < x2 <= shape[1]

    def test_resizing_is_antialiased_and_rounded(self):
        whole = np.asarray(piece(3))
        for height, width in ((143, 171), (60, 150), (30, 25), (1, 1)):
            part = whole[:height, :width]
            expected = np.asarray(
                Image.fromarray(part).resize((48, 48), Image.Resampling.BICUBIC)
            ).astype(int)
            received = resize_crop(tf.constant(part), 48)
            assert received.dtype == tf.uint8
            # Pillow rounds after either axis and has finer weights.
            assert np.abs(received.numpy() - expected).max() <= 4


def test_tensorflow_refuses_a_photo_that_the_check_admits():
    """What `read_crops` has to do without: otherwise the test of DAMAGED would show nothing."""
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_and_crop_jpeg(DAMAGED["zeros for an end"], [140, 0, 12, 187], channels=3)


class TestEncoded:
    def test_encoded_files_are_jpegs_that_decode_in_parts(self):
        assert {
            name for name, data in FILES.items() if plain_jpeg(io.BytesIO(data)) is not None
        } == set(PLAIN)
        assert plain_jpeg(io.BytesIO(PLAIN["colour"])) == PLAIN["colour"]
        assert plain_jpeg(io.BytesIO(OTHERS["turned"]), upright=False) == OTHERS["turned"]
        assert plain_jpeg(io.BytesIO(b"not a photo")) is None

    def test_subsets_and_concatenations_return_their_encoded_files(self):
        images, files = mixed(), list(FILES.values())
        assert [images.encoded(index) for index in range(2)] == files[:2]
        assert subset(images, [3, 9]).encoded(0) == files[3]
        assert subset(images, [3, 9]).encoded(1) is None
        assert concatenated(subset(images, [9]), images).encoded(2) == files[1]
        assert without_labels(images).encoded(1) == files[1]
        assert mixed(partly=False).encoded(0) is None
        with pytest.raises(IndexError, match="received 10"):
            mixed(partly=False).encoded(10)


class TestStream:
    policies = preset("byol")

    def crops(self, images, first_step=0, size=24):
        return crop_batches(images, self.policies, size, 4, 3, first_step)

    def test_crops_are_independent_of_the_decoder(self):
        for batch, other in zip(
            self.crops(mixed()).take(5), self.crops(mixed(partly=False)).take(5), strict=True
        ):
            for one, same in zip(batch, other, strict=True):
                np.testing.assert_array_equal(one.numpy(), same.numpy())

    def test_stream_begins_at_any_step_with_same_bits(self):
        whole = list(self.crops(mixed()).take(4).as_numpy_iterator())
        for expected, received in zip(
            whole[2:], self.crops(mixed(), 2).take(2).as_numpy_iterator(), strict=True
        ):
            for one, same in zip(expected, received, strict=True):
                np.testing.assert_array_equal(one, same)
        assert [part.shape for part in whole[0]] == [(4, 24, 24, 3), (4, 24, 24, 3), (4, 2, 48)]
        assert [part.dtype for part in whole[0]] == [np.uint8, np.uint8, np.float32]

    def test_unreadable_photo_is_an_error(self):
        broken = FILES["colour"][: len(FILES["colour"]) // 3]
        with pytest.raises(tf.errors.OpError):
            list(self.crops(photos([broken] * 4)).take(1))
        with pytest.raises(tf.errors.OpError, match="not an image"):
            list(self.crops(photos([b"nothing"] * 4)).take(1))

    def test_too_few_images_are_an_error(self):
        with pytest.raises(
            ValueError, match="expected at most the number of images, 3; received 4"
        ):
            self.crops(photos(list(FILES.values())[:3]))


class TestViews:
    """Fused views of photos of several sizes against keras-cv's.

    Both are resampled bicubically, keras-cv's without antialiasing.
    """

    def both(self, policies, size, exact, steps=2):
        """Returns (fused, keras-cv's) views, each `[n, size, size, 3]` in [0, 1]."""
        layers = [
            FusedViews(policy.without_crop(), size, view, ZERO, ONE, exact=exact)
            for view, policy in enumerate(policies)
        ]
        data = (
            crop_batches(mixed(), policies, size, 10, 3),
            view_batches(mixed(), policies, size, 10, 3, ZERO, ONE),
        )
        (*crops, params), other = (
            [
                np.concatenate(each)
                for each in zip(*one.take(steps).as_numpy_iterator(), strict=True)
            ]
            for one in data
        )
        tf.config.run_functions_eagerly(True)  # nothing to compile
        fused = [layer(crop, params).numpy() for layer, crop in zip(layers, crops, strict=True)]
        tf.config.run_functions_eagerly(False)
        return list(zip(fused, other, strict=True))

    def test_enlarged_crops_of_both_engines_differ_by_rounding(self):
        policies = tuple(
            policy.model_copy(update={"crop_area": (0.05, 0.1), "blur_probability": 0.5})
            for policy in preset("byol")
        )
        for fused, other in self.both(policies, 120, exact=True):
            difference = np.abs(fused - other)
            # Solarization jumps at its threshold, and hue at grey.
            assert (difference > 0.02).mean() < 0.005
            assert difference.mean() < 0.5 / 255.0

    def test_reduced_crops_of_both_engines_are_similar(self):
        for fused, other in self.both(preset("byol"), 32, exact=False, steps=4):
            assert abs(fused.mean() - other.mean()) < 0.01
            assert abs(fused.std() - other.std()) < 0.02
            assert np.abs(fused.mean(axis=(1, 2)) - other.mean(axis=(1, 2))).mean() < 0.02
            for one, same in zip(fused, other, strict=True):
                assert np.abs(one - same).mean() < 0.12

    def test_policy_without_crop_keeps_a_square(self):
        policy = ViewPolicy(
            **dict.fromkeys(
                (f"{name}_probability" for name in ("flip", "jitter", "grayscale", "blur")), 0.0
            )
        )
        crops = np.random.default_rng(0).integers(0, 256, (5, 21, 21, 3), dtype=np.uint8)
        params = sample_params(0, 1, tf.constant(0, tf.int64), tf.range(5, dtype=tf.int64))
        views = FusedViews(policy.without_crop(), 21, 0, ZERO, ONE)(crops, params)
        np.testing.assert_allclose(views.numpy(), crops / 255.0, atol=1e-6)


def test_crops_of_a_folder_with_all_formats(tmp_path):
    """Opens the photos as a run does: read once to check them, then in parts."""
    for name, data in FILES.items():
        (tmp_path / f"{name}.{'png' if name == 'PNG' else 'jpg'}").write_bytes(data)
    images = open_source("folder", root=str(tmp_path), seed=0).pretrain
    assert images.shape is None
    plain = [images.encoded(index) is not None for index in range(len(images))]
    assert sum(plain) == len(PLAIN)
    policies, size = preset("byol"), 24
    crops = next(iter(crop_batches(images, policies, size, len(images), 0)))
    other = next(
        iter(
            crop_batches(
                LazyImages(len(images), images.__getitem__), policies, size, len(images), 0
            )
        )
    )
    for received, expected in zip(crops, other, strict=True):
        np.testing.assert_array_equal(received.numpy(), expected.numpy())
    assert min(each.numpy().std(axis=(1, 2, 3)).min() for each in crops[:2]) > 5.0
