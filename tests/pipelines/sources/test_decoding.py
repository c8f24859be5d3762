"""Every image_format of image file -> RGB, each against pixels known beforehand."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from pipelines.sources.decoding import decode, read_header
from pipelines.sources.image_file import MAX_PIXELS, UnreadableImage
from pipelines.sources.images import resize_and_center_crop

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
GREY = RGB[..., 0]
SMOOTH = np.stack(
    np.broadcast_arrays(np.arange(64)[:, None] * 4, np.arange(48)[None] * 5, np.uint8(90)), -1
).astype(np.uint8)


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    result, _ = decode(io.BytesIO(data))
    assert result.dtype == np.uint8
    assert result.shape[2] == 3
    return result


def grey_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def png(header: bytes, body: bytes) -> bytes:
    """A PNG by hand, of kinds that Pillow can't write."""
    data = b"\x89PNG\r\n\x1a\n"
    for name, chunk in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")):
        data += (
            struct.pack(">I", len(chunk))
            + name
            + chunk
            + struct.pack(">I", zlib.crc32(name + chunk))
        )
    return data


class TestModes:
    @pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "PPM"])
    def test_rgb_without_loss(self, image_format):
        np.testing.assert_array_equal(pixels(encoded(Image.fromarray(RGB), image_format)), RGB)

    @pytest.mark.parametrize("image_format", ["WEBP", "JPEG2000"])
    def test_rgb_of_newer_formats(self, image_format):
        data = encoded(
            Image.fromarray(RGB),
            image_format,
            **({"lossless": True} if image_format == "WEBP" else {}),
        )
        np.testing.assert_array_equal(pixels(data), RGB)

    @pytest.mark.parametrize("image_format", ["PNG", "GIF", "TIFF", "PPM"])
    def test_grey(self, image_format):
        np.testing.assert_array_equal(
            pixels(encoded(Image.fromarray(GREY), image_format)), grey_rgb(GREY)
        )

    def test_black_and_white(self):
        bits = GREY > 127
        np.testing.assert_array_equal(
            pixels(encoded(Image.fromarray(bits), "PNG")), grey_rgb(bits.astype(np.uint8) * 255)
        )

    def test_palette(self):
        image = Image.fromarray(RGB).quantize(54)
        np.testing.assert_array_equal(
            pixels(encoded(image, "PNG")), np.asarray(image.convert("RGB"))
        )

    def test_transparent_palette_colour_is_blended_with_white(self):
        image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        expected = [[[10, 20, 30], [255, 255, 255]], [[70, 80, 90], [255, 255, 255]]]
        np.testing.assert_array_equal(pixels(encoded(image, "PNG", transparency=1)), expected)

    def test_transparency_is_blended_with_white(self):
        alpha = np.array([[0, 255], [51, 255]], np.uint8)
        colour = np.full((2, 2, 3), 100, np.uint8)
        rgba = Image.fromarray(np.dstack([colour, alpha]))
        np.testing.assert_array_equal(
            pixels(encoded(rgba, "PNG"))[..., 0], [[255, 100], [224, 100]]
        )  # 100 x .2 + 255 x .8
        grey = Image.fromarray(np.dstack([colour[..., 0], alpha]), "LA")
        np.testing.assert_array_equal(
            pixels(encoded(grey, "PNG"))[..., 2], [[255, 100], [224, 100]]
        )

    def test_transparent_rgb_colour(self):
        data = encoded(
            Image.fromarray(RGB), "PNG", transparency=tuple(int(value) for value in RGB[2, 3])
        )
        expected = RGB.copy()
        expected[2, 3] = 255
        np.testing.assert_array_equal(pixels(data), expected)

    @pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM"])
    def test_sixteen_bits(self, image_format):
        deep = GREY.astype(np.uint16) * 257
        np.testing.assert_array_equal(
            pixels(encoded(Image.fromarray(deep), image_format)), grey_rgb(GREY)
        )

    @pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
    @pytest.mark.parametrize("bits", [8, 10, 12, 14])
    def test_fewer_bits_in_sixteen_fill_the_range(self, bits, image_format):
        """A camera of 12 bits writes 0 to 4,095: divided by 257 that would be nearly black."""
        white = 2**bits - 1
        deep = np.rint(GREY * (white / 255)).astype(np.uint16)
        deep[0, :2] = 0, white
        result, facts = decode(io.BytesIO(encoded(Image.fromarray(deep), image_format)))
        np.testing.assert_array_equal(result, grey_rgb(np.rint(deep * (255 / white))))
        assert facts.bits == bits

    def test_fifteen_bits_are_not_rescaled(self):
        dim = np.array([[0, 2**15]], np.uint16)
        np.testing.assert_array_equal(
            pixels(encoded(Image.fromarray(dim), "PNG"))[..., 0], [[0, 128]]
        )

    def test_sixteen_bits_of_the_other_byte_order(self):
        deep = (GREY * np.uint16(257)).astype(">u2")
        image = Image.frombytes("I;16B", (9, 6), deep.tobytes())
        np.testing.assert_array_equal(pixels(encoded(image, "TIFF")), grey_rgb(GREY))

    def test_fewer_bits_in_sixteen_of_colour_are_brightened(self):
        """Pillow has the upper 8 bits only; of 12 bits, 4 are left."""
        rows = b"".join(b"\0" + (row * np.uint16(16)).astype(">u2").tobytes() for row in RGB)
        data = png(struct.pack(">IIBBBBB", 9, 6, 16, 2, 0, 0, 0), zlib.compress(rows))
        result, facts = decode(io.BytesIO(data))
        np.testing.assert_array_equal(result, RGB // 16 * 17)
        assert facts.bits == 12

    def test_sixteen_bits_of_colour(self):
        rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in RGB)
        np.testing.assert_array_equal(
            pixels(png(struct.pack(">IIBBBBB", 9, 6, 16, 2, 0, 0, 0), zlib.compress(rows))), RGB
        )

    def test_floats(self):
        values = np.array([[0.0, 0.5, 1.0]], np.float32)
        np.testing.assert_array_equal(
            pixels(encoded(Image.fromarray(values), "TIFF"))[..., 1], [[0, 128, 255]]
        )
        np.testing.assert_array_equal(
            pixels(encoded(Image.fromarray(values * 20 - 10), "TIFF"))[..., 1], [[0, 128, 255]]
        )
        with pytest.raises(UnreadableImage, match="not finite"):
            pixels(encoded(Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF"))

    def test_integers_of_32_bits(self):
        values = np.array([[-1000, 0, 1000]], np.int32)
        np.testing.assert_array_equal(
            pixels(encoded(Image.fromarray(values), "TIFF"))[..., 1], [[0, 128, 255]]
        )

    def test_cmyk(self):
        """White, red and black as inks; JPEGs of CMYK hold them inverted, as Adobe began it."""
        inks = np.zeros((16, 48, 4), np.uint8)
        inks[:, 16:32] = (0, 255, 255, 0)
        inks[:, 32:] = (0, 0, 0, 255)
        for image_format in ("TIFF", "JPEG"):
            result = pixels(encoded(Image.fromarray(inks, "CMYK"), image_format))
            for column, colour in ((8, (255, 255, 255)), (24, (255, 0, 0)), (40, (0, 0, 0))):
                np.testing.assert_allclose(result[8, column], colour, atol=6)

    def test_first_frame_is_decoded(self):
        second = Image.fromarray(255 - GREY)
        data = encoded(
            Image.fromarray(GREY), "GIF", save_all=True, append_images=[second], duration=50
        )
        np.testing.assert_array_equal(pixels(data), grey_rgb(GREY))


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP"])
    def test_upright(self, orientation, image_format):
        image = Image.fromarray(SMOOTH)
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(image_format, {})
        data = encoded(image, image_format, exif=exif, **options)
        with Image.open(io.BytesIO(data)) as opened:
            expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        result, facts = decode(io.BytesIO(data))
        np.testing.assert_array_equal(result, expected)
        assert facts.rotated == (orientation != 1)
        assert (
            (facts.height, facts.width)
            == result.shape[:2]
            == ((64, 48) if orientation < 5 else (48, 64))
        )
        assert read_header(io.BytesIO(data)).size == result.shape[:2]

    def test_orientation_six_rotates_clockwise(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(Image.fromarray(RGB), "PNG", exif=exif)
        np.testing.assert_array_equal(pixels(data), np.rot90(RGB, -1))
        np.testing.assert_array_equal(decode(io.BytesIO(data), upright=False)[0], RGB)

    @pytest.mark.parametrize(
        "exif",
        [
            b"Exif\0\0nonsense",
            b"Exif\0\0MM\0*\xff\xff\xff\xff",
            b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0",
        ],
    )
    def test_photo_with_broken_exif_is_readable(self, exif):
        data = encoded(Image.fromarray(RGB), "PNG", exif=exif)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about the EXIF block
            np.testing.assert_array_equal(pixels(data), RGB)


class TestUnreadable:
    @pytest.mark.parametrize(
        "data", [b"", b"<html>404</html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(1000)]
    )
    def test_not_an_image(self, data):
        with pytest.raises(UnreadableImage) as caught:
            pixels(data)
        assert str(caught.value)

    @pytest.mark.parametrize(
        ("image_format", "options"),
        [
            ("JPEG", {}),
            ("JPEG", {"progressive": True}),
            ("PNG", {}),
            ("WEBP", {}),
            ("BMP", {}),
            ("GIF", {}),
            ("TIFF", {}),
            ("PPM", {}),
        ],
    )
    def test_truncated_file_is_complete_or_unreadable(self, image_format, options):
        """Never half a picture: where decoding succeeds, the pixels are those of the whole file."""
        data = encoded(Image.fromarray(SMOOTH), image_format, **options)
        whole = pixels(data)
        refused = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about TIFF directories cut short
            for length in np.linspace(0, len(data) - 1, 60).astype(int):
                try:
                    np.testing.assert_array_equal(pixels(data[:length]), whole)
                except UnreadableImage:
                    refused += 1
        assert refused >= 45  # some cuts only take what comes after the pixels

    def test_png_with_noise_for_pixels_is_unreadable(self):
        data = encoded(Image.fromarray(RGB), "PNG")
        noise = np.random.default_rng(0).bytes(len(data) - 41)
        with pytest.raises(UnreadableImage, match="broken data stream"):
            pixels(data[:41] + noise)

    @pytest.mark.parametrize("text", ["none", "Software", "eXIf after the pixels"])
    def test_header_of_png_is_read_without_its_pixels_unless_it_has_exif(self, text):
        exif = Image.Exif()
        exif[0x0112] = 6
        info = PngImagePlugin.PngInfo()
        if text == "Software":
            info.add_text("Software", "x" * 100)
        elif text != "none":
            info.add(b"eXIf", exif.tobytes()[6:], after_idat=True)
        data = encoded(Image.fromarray(SMOOTH), "PNG", pnginfo=info)
        assert read_header(io.BytesIO(data)) == decode(io.BytesIO(data))[1]
        broken = bytearray(data)
        middle = data.index(b"IDAT") + 20
        broken[middle : middle + 100] = bytes(100)
        if text != "eXIf after the pixels":
            assert read_header(io.BytesIO(broken)).size == SMOOTH.shape[:2]

    def test_header_states_what_decoding_does(self):
        for mode, image_format in (("L", "JPEG"), ("CMYK", "JPEG"), ("P", "GIF"), ("RGBA", "PNG")):
            data = encoded(Image.fromarray(SMOOTH).convert(mode), image_format)
            assert read_header(io.BytesIO(data)) == decode(io.BytesIO(data))[1]
        deep = Image.fromarray(SMOOTH[..., 0].astype(np.uint16) * 15)  # 12 bits
        data = encoded(deep, "PNG")
        assert read_header(io.BytesIO(data)).bits == decode(io.BytesIO(data))[1].bits == 12

    def test_png_with_zeroed_second_half_is_unreadable(self):
        data = encoded(
            Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)), "PNG"
        )
        for start in range(100, len(data) - 100, 500):
            with pytest.raises(
                UnreadableImage,
                match=r"checksum of the pixels is wrong|broken data stream|truncated",
            ):
                pixels(data[:start] + bytes(len(data) - start))

    @pytest.mark.parametrize("image_format", ["ICO", "TGA", "PCX", "EPS"])
    def test_unsupported_formats_are_unreadable(self, image_format):
        with pytest.raises(UnreadableImage, match="not an image of a supported format"):
            pixels(encoded(Image.fromarray(RGB), image_format))

    @pytest.mark.parametrize("side", [20_000, 60_000])
    def test_bomb_is_rejected_by_its_header(self, side):
        data = png(struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0), zlib.compress(bytes(1000)))
        with pytest.raises(UnreadableImage, match=rf"more than {MAX_PIXELS:,} pixels"):
            pixels(data)

    def test_noise_in_a_file_never_crashes(self):
        rng = np.random.default_rng(0)
        for image_format in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000"):
            original = np.frombuffer(encoded(Image.fromarray(RGB), image_format), np.uint8)
            for _ in range(40):
                data = original.copy()
                data[rng.integers(0, len(data), 5)] = rng.integers(0, 256, 5)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Pillow's, about what is odd in the file
                    try:
                        pixels(data.tobytes())
                    except UnreadableImage as error:
                        assert 0 < len(str(error)) <= 120


def photo(width: int, height: int, orientation: int = 1) -> bytes:
    """A JPEG of smooth colours with fine noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), np.uint8))
    noise = rng.normal(0, 8, (height, width, 1))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) + noise
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), "JPEG", exif=exif)


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpeg_is_decoded_small_where_it_will_be_resized(orientation):
    data = photo(1000, 800, orientation)
    whole, facts = decode(io.BytesIO(data))
    small, small_facts = decode(io.BytesIO(data), image_size=64)
    assert small_facts == facts and facts.rotated == (orientation == 6)
    assert small.shape == (whole.shape[0] // 4, whole.shape[1] // 4, 3)
    difference = resize_and_center_crop(small, 64).astype(int) - resize_and_center_crop(whole, 64)
    assert np.abs(difference).mean() < 0.5 and np.abs(difference).max() <= 6


def test_picture_that_isnt_four_times_as_large_keeps_its_bits():
    for image_size in (201, 256, 400, 900):
        data = photo(1000, 800)
        whole, _ = decode(io.BytesIO(data))
        np.testing.assert_array_equal(decode(io.BytesIO(data), image_size=image_size)[0], whole)


def test_truncated_jpeg_stays_unreadable_where_it_will_be_resized():
    data = photo(1000, 800)
    with pytest.raises(UnreadableImage, match="truncated"):
        decode(io.BytesIO(data[: len(data) // 2]), image_size=64)
