"""Photos broken, or odd, in 24 ways. Each kind writes one file and says whether a reader should
make a picture of it."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

Draw = np.random.Generator


@dataclass(frozen=True)
class Kind:
    """How a file is made.

    Attributes:
        write: (path without suffix, generator) -> its path.
        good: whether it is a picture.
    """

    write: Callable[[Path, Draw], Path]
    good: bool


def pixels(draw: Draw) -> np.ndarray:
    """A picture with edges and noise, 40 to 60 pixels a side."""
    height, width = draw.integers(40, 60, 2)
    return draw.integers(0, 256, (height, width, 3), np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def file(suffix: str, make: Callable[[Draw], bytes], good: bool) -> Kind:
    def write(stem: Path, draw: Draw) -> Path:
        path = stem.with_name(stem.name + suffix)
        path.write_bytes(make(draw))
        return path

    return Kind(write, good)


def picture(suffix: str, kind: str, mode: str, good: bool = True, **options: object) -> Kind:
    return file(
        suffix,
        lambda draw: encoded(Image.fromarray(pixels(draw)).convert(mode), kind, **options),
        good,
    )


def cut(suffix: str, kind: str, **options: object) -> Kind:
    """Between the header and the last tenth; nearer to the end some kinds lose nothing that
    counts."""

    def make(draw: Draw) -> bytes:
        data = encoded(Image.fromarray(pixels(draw)), kind, **options)
        return data[: int(len(data) * draw.uniform(0.05, 0.9))]

    return file(suffix, make, good=False)


def _sixteen(draw: Draw) -> bytes:
    return encoded(Image.fromarray(pixels(draw)[..., 0].astype(np.uint16) * 257), "PNG")


def _animated(draw: Draw) -> bytes:
    frames = [Image.fromarray(pixels(draw)[:40, :40]) for _ in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=40)


def _noise_behind_a_header(draw: Draw) -> bytes:
    data = encoded(Image.fromarray(pixels(draw)), "PNG")
    return data[:41] + draw.bytes(len(data) - 41)


def _half_zeros(draw: Draw) -> bytes:
    data = encoded(Image.fromarray(pixels(draw)), "PNG")
    start = int(len(data) * draw.uniform(0.2, 0.8))
    return data[:start] + bytes(len(data) - start)


def _bomb(draw: Draw) -> bytes:
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(10_000))),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _special(make: Callable[[Path], None]) -> Kind:
    def write(stem: Path, draw: Draw) -> Path:
        path = stem.with_name(stem.name + ".jpg")
        make(path)
        return path

    return Kind(write, good=False)


def _closed(path: Path) -> None:
    path.write_bytes(b"\xff\xd8\xff")
    path.chmod(0)


def _odd_name(stem: Path, draw: Draw) -> Path:
    words = (
        b"new\nline",
        b"caf\xe9",
        b"caf\xe8",
        "名前".encode(),
        b"tab\tquote\"'",
        b"back\\slash",
        b"-rf *",
        b" ",
        b"\x1b[31m",
        b"a" * 200,
    )
    name = words[draw.integers(len(words))] + stem.name.encode() + b".png"
    path = stem.parent / os.fsdecode(name)
    path.write_bytes(
        encoded(Image.fromarray(pixels(draw)), "PNG") if draw.random() < 0.5 else b"no"
    )
    return path


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"

KINDS: dict[str, Kind] = {
    "empty": file(".jpg", lambda draw: b"", good=False),
    "cut JPEG": cut(".jpg", "JPEG"),
    "cut progressive JPEG": cut(".jpg", "JPEG", progressive=True),
    "cut PNG": cut(".png", "PNG"),
    "cut WebP": cut(".webp", "WEBP"),
    "cut GIF": cut(".gif", "GIF"),
    "cut TIFF": cut(".tif", "TIFF", compression="tiff_lzw"),
    "CMYK": picture(".jpg", "JPEG", "CMYK"),
    "16 bits": file(".png", _sixteen, good=True),
    "palette": picture(".png", "PNG", "P"),
    "transparent": picture(".webp", "WEBP", "RGBA"),
    "animated": file(".gif", _animated, good=True),
    "HTML": file(
        ".jpg", lambda draw: b"<!DOCTYPE html><title>404</title>" + draw.bytes(50), good=False
    ),
    "PNG as .jpg": picture(".jpg", "PNG", "RGB"),
    "JPEG as .tif": picture(".tif", "JPEG", "L"),
    "EPS as .jpg": file(".jpg", lambda draw: EPS, good=False),
    "noise behind a header": file(".png", _noise_behind_a_header, good=False),
    "PNG, zeros from the middle on": file(".png", _half_zeros, good=False),
    "bomb": file(".png", _bomb, good=False),
    "pipe": _special(os.mkfifo),
    "link to nothing": _special(lambda path: path.symlink_to("nothing.jpg")),
    "link to itself": _special(lambda path: path.symlink_to(path.name)),
    "no permission": _special(_closed),
    "odd name": Kind(
        _odd_name, good=False
    ),  # half of them are pictures: `good` is judged by their bytes
}
