"""Plain JPEGs, decoded by simplejpeg, against Pillow's pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.sources import decoding, jpeg
from pipelines.sources.decoding import decode, read_header
from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.jpeg import decode_plain_jpeg, read_plain_header

COARSE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    resized = Image.fromarray(COARSE).resize((width, height), Image.Resampling.BICUBIC)
    return resized.convert(mode)


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def pillow_pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("size", [(1, 1), (9, 7), (96, 96), (131, 97)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_and_facts_are_those_of_pillow(size, mode, subsampling, progressive):
    for quality, restart in ((30, 0), (75, 3), (100, 0)):
        data = encoded(
            picture(*size, mode),
            quality=quality,
            subsampling=subsampling,
            progressive=progressive,
            restart_marker_blocks=restart,
            icc_profile=b"profile" * 9,
            comment=b"text",
        )
        decoded = decode_plain_jpeg(io.BytesIO(data))
        assert decoded is not None
        pixels, facts = decoded
        np.testing.assert_array_equal(pixels, pillow_pixels(data))
        assert (facts.format, facts.mode, facts.width, facts.height) == ("JPEG", mode, *size)
        assert read_plain_header(io.BytesIO(data)) == facts == read_header(io.BytesIO(data))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


OTHERS = {
    "exif": encoded(picture(40, 30), exif=exif(6)),
    "cmyk": encoded(picture(40, 30, "CMYK")),
    "two pictures": b"",
    "png": b"",
    "padded": encoded(picture(40, 30)) + bytes(5),
    "cut": encoded(picture(40, 30))[:-60],
    "no end marker": encoded(picture(40, 30))[:-2],
    "header only": encoded(picture(40, 30))[:100],
    "empty": b"",
}
for name, image_format, options in (
    ("two pictures", "MPO", {"save_all": True, "append_images": [picture(40, 30)]}),
    ("png", "PNG", {}),
):
    buffer = io.BytesIO()
    picture(40, 30).save(buffer, image_format, **options)
    OTHERS[name] = buffer.getvalue()


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_left_at_their_beginning(name):
    file = io.BytesIO(OTHERS[name])
    assert decode_plain_jpeg(file) is None
    assert file.tell() == 0


def test_picture_that_will_be_reduced_is_left_to_pillow():
    data = encoded(picture(400, 300))
    assert decode_plain_jpeg(io.BytesIO(data), max_side=299) is None
    assert decode_plain_jpeg(io.BytesIO(data), max_side=300) is not None


def test_damaged_files_decode_as_pillow_decodes_them(monkeypatch):
    """Bytes of headers and pixels are overwritten; either both read the file, or neither does."""

    def outcome(data: bytes) -> np.ndarray | None:
        try:
            return decode(io.BytesIO(data))[0]
        except UnreadableImage:
            return None

    rng = np.random.default_rng(0)
    intact = [encoded(picture(48, 40), progressive=kind) for kind in (False, True)]
    files = []
    for number in range(400):
        data = bytearray(intact[number % 2])
        for place in rng.integers(2, len(data) - 2, rng.integers(1, 4)):
            data[place] = rng.integers(256)
        files.append(bytes(data))
    results = [outcome(data) for data in files]
    monkeypatch.setattr(decoding, "decode_plain_jpeg", lambda file, max_side: None)
    plain = [outcome(data) for data in files]
    assert jpeg.decode_plain_jpeg(io.BytesIO(intact[0])) is not None
    assert 50 < sum(result is None for result in plain) < 350
    for result, expected in zip(results, plain, strict=True):
        if expected is None:
            assert result is None
        else:
            np.testing.assert_array_equal(result, expected)
