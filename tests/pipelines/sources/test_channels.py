"""Files of any channels, 16 bits and floats -> pixels; damaged and lying ones are unreadable."""

import io
import os
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from pipelines.extras import install_line
from pipelines.sources import SourceError, open_source, scientific
from pipelines.sources.decoding import decode, read_header
from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.images import ArrayImages, LazyImages, resize_and_center_crop
from pipelines.sources.pixels import PixelFormat, false_color, to_pixels
from tests.pipelines.sources.test_decoding import SMOOTH, encoded

FIVE = np.random.default_rng(0).integers(0, 256, (12, 15, 5), np.uint8)
DEEP = np.random.default_rng(1).integers(0, 2**16, (12, 15, 4), np.uint16)
CONTIG = {"photometric": "minisblack", "planarconfig": "contig"}


def read(data: bytes, channels: int, depth: int = 8, range=None) -> np.ndarray:
    pixels = PixelFormat(channels, depth, range)
    image, facts = decode(io.BytesIO(data), pixels=pixels)
    assert image.dtype == pixels.dtype
    assert image.shape == (facts.height, facts.width, channels)
    assert read_header(io.BytesIO(data), pixels=pixels).size == image.shape[:2]
    return image


def reason(data: bytes, channels: int = 5, depth: int = 8, range=None) -> str:
    with pytest.raises(UnreadableImage) as raised:
        decode(io.BytesIO(data), pixels=PixelFormat(channels, depth, range))
    return str(raised.value)


def tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def dicom(array: np.ndarray, **tags: object) -> bytes:
    """Writes grey of 16 bits."""
    import pydicom

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = array.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = array.astype("<u2").tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(
        buffer, dataset, enforce_file_format=False, little_endian=True, implicit_vr=False
    )
    return b"\0" * 128 + b"DICM" + buffer.getvalue().removeprefix(b"\0" * 128 + b"DICM")


class TestTiff:
    @pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd"])
    @pytest.mark.parametrize("tile", [None, (16, 16)])
    def test_pages_and_planes_and_samples(self, compression, tile):
        options = {"photometric": "minisblack", "compression": compression, "tile": tile}
        planes = np.moveaxis(FIVE, 2, 0)
        for data in (
            tiff(planes, **options),
            tiff(planes, **options, planarconfig="separate"),
            tiff(FIVE, **options, planarconfig="contig"),
        ):
            np.testing.assert_array_equal(read(data, 5), FIVE)

    @pytest.mark.parametrize("byteorder", ["<", ">"])
    def test_sixteen_bits_stay_or_are_scaled(self, byteorder):
        data = tiff(DEEP, photometric="rgb", extrasamples=["unspecified"], byteorder=byteorder)
        np.testing.assert_array_equal(read(data, 4, 16), DEEP)
        np.testing.assert_array_equal(read(data, 4), np.rint(DEEP / 257).astype(np.uint8))

    def test_range_is_one_for_all_files(self):
        dark = tiff(np.array([[[0], [500], [1000], [3000]]], np.int16).repeat(9, 0))
        assert read(dark, 1, 8, (0.0, 1000.0))[0, :, 0].tolist() == [0, 128, 255, 255]
        assert read(dark, 1, 16, (500.0, 3000.0))[0, :, 0].tolist() == [0, 0, 13107, 65535]
        assert "type int16, for which data.range is needed" in reason(dark, 1)

    def test_floats_lie_between_zero_and_one_or_need_a_range(self):
        values = np.array([[0.0, 0.5, 1.0, np.nan]], np.float32).repeat(9, 0)
        assert read(tiff(values), 1, 16)[0, :, 0].tolist() == [0, 32768, 65535, 0]
        assert "numbers from 0 to 2, for which data.range is needed" in reason(tiff(values * 2), 1)
        assert read(tiff(values * 2), 1, 8, (0.0, 2.0))[0, 1, 0] == 128

    def test_geotiff_tags_and_smaller_copies_are_ignored(self):
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as writer:
            geo = [(33550, "d", 3, (10.0, 10.0, 0.0), True), (42113, "s", 2, "0", True)]
            writer.write(DEEP, photometric="rgb", extrasamples=["unspecified"], extratags=geo)
            writer.write(
                DEEP[::2, ::2], photometric="rgb", extrasamples=["unspecified"], subfiletype=1
            )
        np.testing.assert_array_equal(read(buffer.getvalue(), 4, 16), DEEP)

    def test_white_is_zero(self):
        data = tiff(FIVE[..., 0], photometric="miniswhite")
        np.testing.assert_array_equal(read(data, 1)[..., 0], 255 - FIVE[..., 0])

    def test_orientation(self):
        data = tiff(FIVE, **CONTIG, extratags=[(274, "H", 1, 6, True)])
        np.testing.assert_array_equal(read(data, 5), np.rot90(FIVE, -1))

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (tiff(np.zeros((3, 8, 8, 3), np.uint8), photometric="rgb"), "3 pages of 3 channels"),
            (tiff(FIVE[..., :3], photometric="rgb", compression="jpeg"), "compression 7"),
            (tiff(np.zeros((70, 8, 8), np.uint8)), "more than 64 pages"),
            (tiff(np.zeros((8, 8, 5), np.complex64), photometric="minisblack"), "type complex64"),
        ],
    )
    def test_other_forms_are_unreadable(self, data, text):
        assert text in reason(data)

    def test_lying_size_allocates_nothing(self):
        data = bytearray(tiff(FIVE[..., 0], photometric="minisblack"))
        data = data.replace(
            struct.pack("<HHII", 256, 4, 1, 15), struct.pack("<HHII", 256, 4, 1, 2**31 - 1)
        )
        data = data.replace(
            struct.pack("<HHII", 257, 4, 1, 12), struct.pack("<HHII", 257, 4, 1, 2**31 - 1)
        )
        assert "MB of pixels" in reason(bytes(data), 1)

    def test_bytes_that_are_missing(self):
        whole = tiff(np.moveaxis(FIVE, 2, 0), photometric="minisblack", compression="zlib")
        for length in range(8, len(whole), 97):
            try:
                np.testing.assert_array_equal(read(whole[:length], 5), FIVE)
            except UnreadableImage:
                continue


class TestPhotos:
    def test_grey_stays_grey(self):
        for image_format in ("PNG", "JPEG"):
            image = read(encoded(Image.fromarray(SMOOTH[..., 0]), image_format), 1)
            assert np.abs(image[..., 0].astype(int) - SMOOTH[..., 0]).max() < 6

    def test_transparency_is_a_channel(self):
        rgba = np.dstack([SMOOTH, SMOOTH[..., 0]])
        np.testing.assert_array_equal(read(encoded(Image.fromarray(rgba), "PNG"), 4), rgba)

    def test_deep_grey_and_colour_keep_their_depth(self):
        import imagecodecs

        grey = encoded(Image.fromarray(DEEP[..., 0]), "PNG")
        np.testing.assert_array_equal(read(grey, 1, 16)[..., 0], DEEP[..., 0])
        colour = imagecodecs.png_encode(DEEP[..., :3].copy())
        np.testing.assert_array_equal(read(colour, 3, 16), DEEP[..., :3])

    def test_eight_bits_fill_sixteen(self):
        np.testing.assert_array_equal(
            read(encoded(Image.fromarray(SMOOTH), "PNG"), 3, 16), SMOOTH.astype(np.uint16) * 257
        )

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(SMOOTH), "PNG", exif=exif)
        expected, _ = decode(io.BytesIO(data))
        np.testing.assert_array_equal(read(data, 3, 16), expected.astype(np.uint16) * 257)

    def test_other_number_of_channels_is_named(self):
        data = encoded(Image.fromarray(SMOOTH), "PNG")
        assert reason(data) == "3 channels, and data.channels is 5; data.channels=3 reads it"


class TestNumpy:
    def test_arrays(self):
        np.testing.assert_array_equal(read(npy(FIVE), 5), FIVE)
        np.testing.assert_array_equal(read(npy(np.asfortranarray(FIVE)), 5), FIVE)
        np.testing.assert_array_equal(read(npy(DEEP[..., 0]), 1, 16)[..., 0], DEEP[..., 0])

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (npy(np.array([{}], object)), "numbers of type object"),
            (npy(FIVE)[:-1], "truncated"),
            (npy(FIVE[None]), "expected [height, width, channels]"),
            (npy(FIVE[:0]), "no pixels"),
        ],
    )
    def test_other_arrays_are_unreadable(self, data, text):
        assert text in reason(data)

    def test_lying_shape_allocates_nothing(self):
        data = npy(FIVE).replace(b"(12, 15, 5), }        ", b"(99999, 99999, 5), }  ")
        assert "MB of pixels" in reason(data)


class TestDicom:
    def test_bits_stored_are_the_range(self):
        numbers = np.array([[0, 1000], [2000, 4095]], np.uint16)
        np.testing.assert_array_equal(
            read(dicom(numbers), 1, 16)[..., 0], np.rint(numbers * (65535 / 4095)).astype(np.uint16)
        )

    def test_rescale_and_window(self):
        numbers = np.array([[0, 924], [1024, 1124]], np.uint16)
        tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 0, "WindowWidth": 201}
        # The window is -100.5 to 99.5.
        window = read(dicom(numbers, **tags), 1)[..., 0]
        assert window.tolist() == [[0, 1], [128, 255]]
        fixed = read(dicom(numbers, **tags), 1, range=(-1024.0, 1024.0))[..., 0]
        assert fixed.tolist() == [[0, 115], [128, 140]]

    def test_monochrome1_is_inverted(self):
        numbers = np.array([[0, 4095]], np.uint16)
        data = dicom(numbers, PhotometricInterpretation="MONOCHROME1")
        assert read(data, 1)[..., 0].tolist() == [[255, 0]]

    @pytest.mark.parametrize(
        ("tags", "text"),
        [
            ({"NumberOfFrames": 3}, "3 frames"),
            ({"Rows": 60000, "Columns": 60000}, "MB of pixels"),
            ({"PhotometricInterpretation": "PALETTE COLOR"}, "palette"),
        ],
    )
    def test_other_files_are_unreadable(self, tags, text):
        assert text in reason(dicom(DEEP[..., 0] // 16, **tags), 1)

    def test_deflated_file_is_refused_before_it_is_unpacked(self):
        data = dicom(DEEP[..., 0])
        lying = data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99\0\0")
        lying = lying.replace(b"UI\x14\x00", b"UI\x18\x00", 1)
        assert "deflated" in reason(lying, 1)


@pytest.mark.parametrize(
    "whole",
    [
        tiff(np.moveaxis(FIVE, 2, 0), photometric="minisblack", compression="lzw"),
        tiff(FIVE, **CONTIG, tile=(16, 16), compression="zlib"),
        npy(FIVE),
        dicom(DEEP[..., 0] // 16),
    ],
    ids=["pages", "tiles", "npy", "dicom"],
)
def test_noise_in_a_file_never_crashes(whole):
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, min(len(data), 700), 4):
            data[at] = rng.integers(256)
        for pixels in (PixelFormat(5), PixelFormat(1, 16)):
            try:
                image, _ = decode(io.BytesIO(bytes(data)), pixels=pixels)
                assert image.nbytes <= scientific.MAX_BYTES
            except UnreadableImage:
                continue


def test_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    assert install_line("tiff") in reason(tiff(FIVE, **CONTIG))


def test_five_channel_tiff_as_rgb_says_what_reads_it():
    with pytest.raises(UnreadableImage, match=r"data\.channels=N"):
        decode(io.BytesIO(tiff(FIVE, **CONTIG)))


def test_numbers_become_pixels_by_the_range():
    numbers = np.array([[[-5.0], [0.0], [2.5], [5.0]]])
    assert to_pixels(numbers, PixelFormat(1, 8, (0.0, 5.0))).ravel().tolist() == [0, 0, 128, 255]


def test_resized_channels_are_those_of_each_channel_alone():
    image = resize_and_center_crop(FIVE, 8)
    for channel in range(5):
        rgb = resize_and_center_crop(np.repeat(FIVE[..., channel, None], 3, 2), 8)
        np.testing.assert_array_equal(image[..., channel], rgb[..., 0])
    smooth, deep = (resize_and_center_crop(SMOOTH * np.uint16(scale), 20) for scale in (1, 257))
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257.0 - smooth).max() <= 1.0


def test_false_colour_stretches_what_isnt_rgb():
    assert false_color(SMOOTH) is SMOOTH
    dark = (SMOOTH[..., :1] // 8).astype(np.uint16)
    picture = false_color(dark)
    assert (picture.dtype, picture.shape[2]) == (np.uint8, 3)
    assert (picture.min(), picture.max()) == (0, 255)


def test_lazy_images_of_another_type_are_an_error():
    images = LazyImages(2, lambda index: DEEP, pixels=PixelFormat(4))
    with pytest.raises(ValueError, match=r"expected uint8 .* of 4 channels; received uint16"):
        images[0]


class TestFolder:
    def test_photos_of_several_formats_are_one_set(self, tmp_path):
        (tmp_path / "a.tif").write_bytes(tiff(FIVE, **CONTIG))
        (tmp_path / "b.npy").write_bytes(npy(FIVE))
        source = open_source("folder", root=str(tmp_path), channels=5, layout="flat")
        assert isinstance(source.pretrain, ArrayImages)
        assert source.pretrain.shape == (12, 15, 5)
        np.testing.assert_array_equal(source.pretrain[1], FIVE)

    def test_other_number_of_channels_is_an_error_with_the_right_one(self, tmp_path):
        for name in "abc":
            (tmp_path / f"{name}.tif").write_bytes(tiff(FIVE, **CONTIG))
        with pytest.raises(SourceError, match=r"3 of 3 files .* data\.channels=5 reads it"):
            open_source("folder", root=str(tmp_path), channels=4, layout="flat")

    def test_scan_of_other_channels_is_another_one(self, tmp_path):
        photos = tmp_path / "photos"
        photos.mkdir()
        for name in "ab":
            (photos / f"{name}.tif").write_bytes(tiff(FIVE, **CONTIG))
        options = {"root": str(photos), "layout": "flat", "scan_folder": str(tmp_path)}
        open_source("folder", **options, channels=5, cache="none").save_scan()
        assert len([name for name in os.listdir(tmp_path) if name.startswith(".photos-")]) == 1
        with pytest.raises(SourceError, match="can't be read"):
            open_source("folder", **options, cache="none")
