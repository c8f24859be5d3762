"""Odd files as people have them: read with all their pixels, or skipped with a reason."""

import io
import shutil
import struct
import subprocess
import sys
import unicodedata
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipelines.sources import image_file, open_source, plan_source
from pipelines.sources.decoding import decode, read_header
from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.jpeg import plain_jpeg

WIDTH, HEIGHT = 48, 32
SMOOTH = np.stack(
    np.broadcast_arrays(np.arange(HEIGHT)[:, None] * 7, np.arange(WIDTH)[None] * 5, np.uint8(90)),
    -1,
).astype(np.uint8)
RGB = Image.fromarray(SMOOTH)
GREY = RGB.convert("L")
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def deep(bits: int, image_format: str) -> bytes:
    """Grey of so many bits in a file of 16."""
    values = np.asarray(GREY) * ((2**bits - 1) / 255)
    return encoded(Image.fromarray(values.astype(np.uint16)), image_format)


def png_text(compressed: bool, size: int = 1_200_000) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "x" * size, zip=compressed)
    return encoded(RGB, "PNG", pnginfo=info)


def white_is_zero() -> bytes:
    """A TIFF of 16 bits whose tag 262 says 0; Pillow writes 1."""
    tag = struct.Struct("<HHII").pack
    data = encoded(Image.fromarray(65535 - np.asarray(GREY).astype(np.uint16) * 257), "TIFF")
    assert data.count(tag(262, 3, 1, 1)) == 1
    return data.replace(tag(262, 3, 1, 1), tag(262, 3, 1, 0))


def chunk(name: bytes, content: bytes, crc: int) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def text_behind_pixels() -> bytes:
    """A PNG whose large XMP follows the pixels, so that it is met while they are read."""
    data = png_text(compressed=True)
    start = data.index(b"iTXt") - 4
    length = struct.unpack(">I", data[start : start + 4])[0] + 12
    end = data.index(b"IEND") - 4
    return data[:start] + data[start + length : end] + data[start : start + length] + data[end:]


def too_large() -> bytes:
    """A PNG of 200,010,000 pixels, as far as its header says."""
    data = PNG[:8]
    header = struct.pack(">IIBBBBB", 20_001, 10_000, 8, 0, 0, 0, 0)
    for name, chunk in ((b"IHDR", header), (b"IDAT", bytes(9))):
        checksum = struct.pack(">I", zlib.crc32(name + chunk))
        data += struct.pack(">I", len(chunk)) + name + chunk + checksum
    return data


def spoilt(data: bytes, start: int, length: int) -> bytes:
    return data[:start] + bytes(length) + data[start + length :]


JPEG, PNG = encoded(RGB, "JPEG", quality=95), encoded(RGB, "PNG")
NOISY = encoded(NOISE, "JPEG")
FLOATS = np.asarray(GREY).astype(np.float32)

READ: dict[str, Callable[[], bytes]] = {
    "a.jpg": lambda: JPEG,
    "saved by a browser.jfif": lambda: JPEG,
    "old.jpe": lambda: JPEG,
    "older.jif": lambda: JPEG,
    "CAPITALS.JPEG": lambda: JPEG,
    "progressive.jpg": lambda: encoded(RGB, "JPEG", quality=95, progressive=True),
    "all colours.jpg": lambda: encoded(RGB, "JPEG", quality=95, subsampling=0),
    "inks.jpg": lambda: encoded(RGB.convert("CMYK"), "JPEG", quality=95),
    "two pictures.jpg": lambda: encoded(RGB, "MPO", save_all=True, append_images=[GREY]),
    "upright by EXIF.jpg": lambda: encoded(RGB.rotate(90, expand=True), "JPEG", exif=exif(6)),
    "broken EXIF.jpg": lambda: encoded(RGB, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "no end.jpg": lambda: JPEG[:-2],
    "half an end.jpg": lambda: JPEG[:-1],
    "zeros for an end.jpg": lambda: JPEG[:-2] + bytes(512),
    "zeros behind.jpg": lambda: JPEG + bytes(512),
    "a film behind.jpg": lambda: JPEG + b"ftypmp42" * 1000,
    "a film and zeros behind.jpg": lambda: JPEG + b"ftypmp42" * 1000 + bytes(512),
    "profile.jpg": lambda: encoded(RGB, "JPEG", quality=95, icc_profile=bytes(500_000)),
    "a PNG.jpg": lambda: PNG,
    "a JPEG.png": lambda: JPEG,
    "a.png": lambda: PNG,
    "profile of 1.5 MB.png": lambda: encoded(RGB, "PNG", icc_profile=bytes(1_500_000)),
    "XMP of 1.2 MB.png": lambda: png_text(compressed=True),
    "text of 1.2 MB.png": lambda: png_text(compressed=False),
    "XMP behind the pixels.png": text_behind_pixels,
    "wrong checksum of a text.png": lambda: (
        PNG[:33] + chunk(b"tEXt", b"Title\0cat", crc=0) + PNG[33:]
    ),
    "animation.png": lambda: encoded(RGB, "PNG", save_all=True, append_images=[RGB]),
    "transparency.png": lambda: encoded(RGB.convert("RGBA"), "PNG"),
    "turned.png": lambda: encoded(RGB.rotate(90, expand=True), "PNG", exif=exif(6)),
    "truncated behind the pixels.png": lambda: PNG[:-12],
    "a.webp": lambda: encoded(RGB, "WEBP", quality=95),
    "lossless.webp": lambda: encoded(RGB, "WEBP", lossless=True),
    "animation.webp": lambda: encoded(RGB, "WEBP", save_all=True, append_images=[GREY]),
    "a.bmp": lambda: encoded(RGB, "BMP"),
    "a.tif": lambda: encoded(RGB, "TIFF"),
    "LZW.tiff": lambda: encoded(RGB, "TIFF", compression="tiff_lzw"),
    "pages.tif": lambda: encoded(RGB, "TIFF", save_all=True, append_images=[RGB]),
    "a.ppm": lambda: encoded(RGB, "PPM"),
    "a.jp2": lambda: encoded(RGB, "JPEG2000"),
}
READ_GREY: dict[str, Callable[[], bytes]] = {
    "grey.jpg": lambda: encoded(GREY, "JPEG", quality=95),
    "grey and no end.jpg": lambda: encoded(GREY, "JPEG", quality=95)[:-2],
    "grey.png": lambda: encoded(GREY, "PNG"),
    "grey with transparency.png": lambda: encoded(GREY.convert("LA"), "PNG"),
    "16 bits.png": lambda: deep(16, "PNG"),
    "14 bits in 16.png": lambda: deep(14, "PNG"),
    "12 bits in 16.png": lambda: deep(12, "PNG"),
    "10 bits in 16.tif": lambda: deep(10, "TIFF"),
    "8 bits in 16.tif": lambda: deep(8, "TIFF"),
    "16 bits, white is zero.tif": white_is_zero,
    "16 bits.pgm": lambda: deep(16, "PPM"),
    "0 to 1.tif": lambda: encoded(Image.fromarray(FLOATS / 255), "TIFF"),
    "palette.gif": lambda: encoded(GREY, "GIF"),
    "animation.gif": lambda: encoded(GREY, "GIF", save_all=True, append_images=[GREY]),
}
SKIPPED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.jpg": (lambda: b"", "empty file"),
    "a page.jpg": (lambda: b"<html>404</html>", "not an image"),
    "a start alone.jpg": (lambda: JPEG[:4], ""),
    "20 bytes lack.jpg": (lambda: NOISY[:-20], "truncated"),
    "a half.jpg": (lambda: NOISY[: len(NOISY) // 2], "truncated"),
    "progressive, a half.jpg": (
        lambda: encoded(NOISE, "JPEG", progressive=True)[:-2000],
        "truncated",
    ),
    "zeros for a half.jpg": (
        lambda: spoilt(NOISY, len(NOISY) // 2, len(NOISY) - len(NOISY) // 2),
        "truncated; zeros follow",
    ),
    "a half.png": (lambda: encoded(NOISE, "PNG")[:90_000], "truncated"),
    "zeros within.png": (lambda: spoilt(encoded(NOISE, "PNG"), 90_000, 90_000), ""),
    "a half.webp": (lambda: encoded(NOISE, "WEBP", lossless=True)[:90_000], ""),
    "a half.tif": (lambda: encoded(NOISE, "TIFF")[:90_000], ""),
    "not numbers.tif": (
        lambda: encoded(Image.fromarray(FLOATS * np.nan), "TIFF"),
        "not finite",
    ),
    "200 million pixels.png": (too_large, "more than 200,000,000 pixels"),
    "a drawing.jpg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "a document.jpg": (lambda: b"%PDF-1.7\n", "not an image"),
    "PostScript.jpg": (lambda: encoded(RGB, "EPS"), "not an image"),
    "an icon.png": (lambda: encoded(RGB, "ICO", sizes=[(16, 16)]), "not an image"),
}


def test_odd_files_are_read_or_skipped_with_a_reason(tmp_path):
    for name, make in (READ | READ_GREY).items():
        (tmp_path / name).write_bytes(make())
    for name, (make, _) in SKIPPED.items():
        (tmp_path / name).write_bytes(make())
    count = len(READ) + len(READ_GREY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about EXIF and TIFF that are broken
        plan = plan_source("folder", root=str(tmp_path))
        source = open_source("folder", root=str(tmp_path), max_unreadable_fraction=0.5)
    assert plan.counts["pretrain"] == count + len(SKIPPED)
    assert len(source.pretrain) == count
    reasons = dict(source.skipped)
    assert reasons.keys() == SKIPPED.keys()
    for name, (_, reason) in SKIPPED.items():
        assert reason in reasons[name], name
    assert (
        "numbers of 16 bits that hold fewer, brightened: 10 bits 1, 12 bits 1, 14 bits 1, 8 bits 1 "
        "photo(s)"
    ) in source.findings


@pytest.mark.parametrize("name", READ | READ_GREY)
def test_odd_file_has_all_its_pixels(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels, _ = decode(io.BytesIO((READ | READ_GREY)[name]()))
    expected = RGB if name in READ else GREY.convert("RGB")
    np.testing.assert_allclose(pixels, np.asarray(expected), atol=16)  # JPEG, WebP and inks differ


def test_jpeg_is_read_without_its_end_and_only_whole():
    """Noise fills each byte with pixels: with any byte of them missing, pixels would differ."""
    for photo in (NOISE, NOISE.convert("L")):
        whole = encoded(photo, "JPEG")
        expected = decode(io.BytesIO(whole))[0]
        for missing in range(1, 40):
            try:
                pixels = decode(io.BytesIO(whole[:-missing]))[0]
            except UnreadableImage:
                assert missing > 2
            else:
                np.testing.assert_array_equal(pixels, expected)


def test_names_of_files_may_be_in_either_form_of_unicode(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "café/Zoë.jpg") for form in ("NFC", "NFD"))
    (tmp_path / nfd).parent.mkdir()
    (tmp_path / nfd).write_bytes(JPEG)
    (tmp_path / "b.jpg").write_bytes(JPEG)
    for text in (f"{nfc}\nb.jpg\n", "caf\u00e9\\Zo\u00eb.jpg\nb.jpg\n"):
        (tmp_path / "list.txt").write_text(text)
        assert plan_source("folder", root=str(tmp_path / "list.txt")).counts["pretrain"] == 2


LARGE = {
    "JPEG": lambda: encoded(RGB, "JPEG", quality=95),
    "turned": lambda: encoded(RGB.rotate(90, expand=True), "JPEG", quality=95, exif=exif(6)),
    "inks": lambda: encoded(RGB.convert("CMYK"), "JPEG", quality=95),
    "PNG": lambda: PNG,
    "transparency": lambda: encoded(RGB.convert("RGBA"), "PNG"),
    "palette": lambda: encoded(RGB.quantize(256), "PNG"),
    "WebP": lambda: encoded(RGB, "WEBP", lossless=True),
    "TIFF": lambda: encoded(RGB, "TIFF"),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_picture_is_read_at_half_its_size(monkeypatch, name):
    monkeypatch.setattr(image_file, "HALVED_PIXELS", WIDTH * HEIGHT - 1)
    file = io.BytesIO(LARGE[name]())
    pixels, facts = decode(file)
    assert pixels.shape == (HEIGHT // 2, WIDTH // 2, 3)
    assert facts.halved
    assert read_header(io.BytesIO(file.getvalue())).size == pixels.shape[:2]
    assert plain_jpeg(io.BytesIO(file.getvalue())) is None  # TensorFlow would decode all of it
    np.testing.assert_allclose(
        pixels, np.asarray(RGB.reduce(2)), atol=20 if name == "palette" else 9
    )


@pytest.mark.parametrize("bits", [12, 16])
def test_large_grey_of_16_bits_is_read_at_half_its_size(monkeypatch, bits):
    monkeypatch.setattr(image_file, "HALVED_PIXELS", WIDTH * HEIGHT - 1)
    pixels, facts = decode(io.BytesIO(deep(bits, "PNG")))
    assert (facts.halved, facts.bits) == (True, bits % 16)
    np.testing.assert_allclose(pixels, np.asarray(GREY.convert("RGB").reduce(2)), atol=2)


@pytest.mark.long
def test_photos_at_the_limit_take_bounded_memory(tmp_path):
    """Eight grey PNGs of 178.8 megapixels once took 10.9 GB."""
    Image.new("L", (13_370, 13_370), 90).save(tmp_path / "0.png", compress_level=1)
    for number in range(1, 8):
        shutil.copy(tmp_path / "0.png", tmp_path / f"{number}.png")
    code = (
        "import resource, sys\n"
        "from pipelines.sources import FlatImageFolder\n"
        "folder = FlatImageFolder(sys.argv[1], '--images')\n"
        "shapes = {pixels.shape for _, pixels, _ in folder.read_each(folder.photos)}\n"
        "assert shapes == {(6685, 6685, 3)}, shapes\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    root = Path(__file__).parents[4]
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    # One picture in decoding, and two results of 134 MB for each of at most 16 threads.
    assert int(done.stdout) < 6_000


@pytest.mark.parametrize("length", [30_000_000, image_file.WHOLE_FILE_BYTES + 1])
def test_webp_with_more_bytes_than_its_picture_needs_is_refused(tmp_path, length):
    """A sparse file, which takes no disk space."""
    file = tmp_path / "a.webp"
    file.write_bytes(encoded(RGB, "WEBP"))
    with file.open("r+b") as opened:
        opened.truncate(length)
        opened.seek(0)
        with pytest.raises(UnreadableImage, match="more bytes than its picture could need"):
            decode(opened)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"icc_profile": b"profile"}])
def test_webp_may_be_as_long_as_the_size_that_it_states_needs(tmp_path, options):
    """In each of the three headers, by a sparse file."""
    file = tmp_path / "a.webp"
    file.write_bytes(encoded(Image.new("RGB", (1_000, 700)), "WEBP", **options))
    longest = image_file.max_bytes((1_000, 700))
    with file.open("r+b") as opened:
        opened.truncate(longest - 1_000)  # less what is read twice
        opened.seek(0)
        assert decode(opened)[0].shape == (700, 1_000, 3)
        opened.truncate(longest + 1)
        opened.seek(0)
        with pytest.raises(UnreadableImage, match="more bytes than its picture could need"):
            decode(opened)
