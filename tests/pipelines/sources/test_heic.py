"""HEIC and AVIF, made by their own encoders; and what is said where they can't be read."""

import contextlib
import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines.sources import SourceError, heic, open_source, plan_source
from pipelines.sources.decoding import decode, read_header
from pipelines.sources.image_file import MAX_PIXELS, UnreadableImage
from pipelines.sources.jpeg import plain_jpeg
from tests.helpers.heic_grid import GREYS, grid

SMOOTH = np.stack(
    np.broadcast_arrays(np.arange(64)[:, None] * 4, np.arange(96)[None] * 2, np.uint8(90)), -1
).astype(np.uint8)
OF_HEIC = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(100)
"""The first box of a telephone's photo, by hand."""
OF_AVIF = struct.pack(">I", 28) + b"ftypavif\0\0\0\0mif1avifmiaf" + bytes(100)
OF_VIDEO = struct.pack(">I", 24) + b"ftypisom\0\0\0\0isommp41" + bytes(100)
INSTALL = "HEIC; to read it: pip install pillow-heif"


@pytest.fixture(params=["HEIF", "AVIF"])
def image_format(request) -> str:
    """Returns each of the two formats that can be written here.

    The extra `test` brings pillow-heif, and Pillow writes AVIF from 11.3 on.
    """
    if request.param not in heic.readable():
        pytest.skip(f"{request.param} can't be read here")
    return request.param


@pytest.fixture
def neither(monkeypatch):
    """As where pillow-heif isn't installed, and Pillow knows no AVIF."""
    monkeypatch.setattr(heic, "readable", lambda: ())


def encoded(image_format: str, pixels: np.ndarray = SMOOTH, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, quality=95, **options)
    return buffer.getvalue()


def test_photo_is_decoded(image_format):
    data = encoded(image_format)
    pixels, facts = decode(io.BytesIO(data))
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), SMOOTH, atol=12)
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < 2
    assert (facts.format, facts.mode, facts.width, facts.height) == (image_format, "RGB", 96, 64)
    assert read_header(io.BytesIO(data)).size == (64, 96)
    assert plain_jpeg(io.BytesIO(data)) is None


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_photo_is_upright(image_format, orientation):
    image = Image.fromarray(SMOOTH)
    exif = image.getexif()
    exif[0x0112] = orientation
    expected, buffer = np.asarray(ImageOps.exif_transpose(image)), io.BytesIO()
    image.save(
        buffer, image_format, quality=95, **({"exif": exif} if image_format == "AVIF" else {})
    )  # pillow-heif takes it from the image
    assert b"irot" in buffer.getvalue()  # as telephones say it
    np.testing.assert_allclose(decode(buffer)[0].astype(int), expected, atol=12)
    buffer.seek(0)
    assert read_header(buffer).size == expected.shape[:2]


def test_transparency_is_blended_with_white(image_format):
    data = encoded(
        image_format,
        np.dstack(
            [np.zeros_like(SMOOTH), np.repeat([[0] * 48 + [255] * 48], 64, axis=0).astype(np.uint8)]
        ),
    )
    pixels = decode(io.BytesIO(data))[0]
    assert pixels[:, :40].min() > 240
    assert pixels[:, 56:].max() < 15


def test_truncated_file_is_complete_or_unreadable(image_format):
    data = encoded(image_format, np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
    whole = decode(io.BytesIO(data))[0]
    for length in np.linspace(0, len(data) - 1, 60).astype(int):
        try:
            np.testing.assert_array_equal(decode(io.BytesIO(data[:length]))[0], whole)
        except UnreadableImage as error:
            assert 0 < len(str(error)) <= 120
        else:
            pytest.fail(f"whole with {length} of {len(data)} bytes")


def test_truncated_grid_of_tiles_is_unreadable(monkeypatch):
    """The control: the decoder itself accepts the tiles that are there, from libheif 1.18 on."""
    pillow_heif = pytest.importorskip("pillow_heif")
    heic.readable()
    data = grid()
    whole = decode(io.BytesIO(data))[0]
    assert [round(int(whole[y, x, 0]), -1) for y in (4, 68) for x in (4, 68)] == list(GREYS)
    half = 0
    for length in np.linspace(0, len(data) - 1, 40).astype(int):
        with pytest.raises(UnreadableImage):
            decode(io.BytesIO(data[:length]))
        with monkeypatch.context() as patch, contextlib.suppress(UnreadableImage):
            patch.setattr(heic, "is_truncated", lambda file: False)
            half += not np.array_equal(decode(io.BytesIO(data[:length]))[0], whole)
    assert half or pillow_heif.__version__.startswith("0.")


def test_noise_in_a_file_never_crashes(image_format):
    rng, original = np.random.default_rng(0), np.frombuffer(encoded(image_format), np.uint8)
    for _ in range(40):
        data = original.copy()
        data[rng.integers(0, len(data), 5)] = rng.integers(0, 256, 5)
        try:
            decode(io.BytesIO(data.tobytes()))
        except UnreadableImage as error:
            assert 0 < len(str(error)) <= 120


def test_bomb_is_rejected_before_decoding(image_format):
    data = encoded(image_format)
    at = data.index(b"ispe") + 8
    for side in (14_200, 60_000):
        with pytest.raises(UnreadableImage) as refused:
            decode(io.BytesIO(data[:at] + struct.pack(">II", side, side) + data[at + 8 :]))
        assert side > 16_000 or f"more than {MAX_PIXELS:,} pixels" in str(
            refused.value
        )  # beyond that their own libraries refuse


@pytest.mark.parametrize(
    ("start", "reason"),
    [(OF_HEIC, INSTALL), (OF_AVIF, 'AVIF; to read it: pip install "pillow>=11.3"')],
)
def test_reason_says_what_to_install(neither, start, reason):
    for read in (decode, read_header):
        with pytest.raises(UnreadableImage) as refused:
            read(io.BytesIO(start))
        assert str(refused.value) == reason


@pytest.mark.parametrize("start", [OF_VIDEO, b"\0\0\0\0ftyp", b"", b"\xff\xff\xff\xffftypqt  "])
def test_other_files_are_not_mistaken_for_heic(neither, start):
    with pytest.raises(UnreadableImage, match=r"^not an image of a supported format$"):
        decode(io.BytesIO(start))


def test_broken_file_has_nothing_to_install():
    readable = {"AVIF": OF_AVIF, "HEIF": OF_HEIC}
    for image_format in heic.readable():
        with pytest.raises(UnreadableImage) as refused:
            decode(io.BytesIO(readable[image_format]))
        assert "pip" not in str(refused.value)


def test_heic_without_package_is_unreadable(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic.readable.cache_clear()
    try:
        assert "HEIF" not in heic.readable()
    finally:
        heic.readable.cache_clear()


def photos(root: Path, pngs: int, heics: int, data: bytes) -> Path:
    root.mkdir()
    for number in range(pngs):
        Image.fromarray(SMOOTH + np.uint8(number)).save(root / f"{number:03}.png")
    for number in range(heics):
        (root / f"IMG_{number:04}.HEIC").write_bytes(data)
    (root / "000-broken.png").write_bytes(b"no")
    return root


def test_folder_of_heic_and_avif(tmp_path):
    pytest.importorskip("pillow_heif")
    heic.readable()
    source = open_source(
        "folder",
        root=str(photos(tmp_path / "mixed", 40, 10, encoded("HEIF"))),
        max_unreadable_fraction=0.02,
    )
    assert len(source.pretrain) == 50
    assert source.skipped == (("000-broken.png", "not an image of a supported format"),)
    assert any("formats: PNG 40, HEIF 10" in note for note in source.notes)
    np.testing.assert_allclose(source.pretrain[49].astype(int), SMOOTH, atol=12)


def test_folder_of_heic_and_avif_without_package(tmp_path, neither):
    root = str(photos(tmp_path / "mixed", 40, 10, OF_HEIC))
    source = open_source("folder", root=root, max_unreadable_fraction=0.5)
    assert len(source.pretrain) == 40
    assert dict(source.skipped)["IMG_0009.HEIC"] == INSTALL
    assert any(
        note == f"10 photo(s) can't be read here: {INSTALL}"
        for note in plan_source("folder", root=root).notes
    )
    # The commonest reason comes first, though ten files of another reason might come before it by
    # name.
    message = rf"11 of 51 files can't be read, .* For example IMG_0000.HEIC and 9 more: {INSTALL}; 000-broken.png: not an image"
    with pytest.raises(SourceError, match=message):
        open_source("folder", root=root)
