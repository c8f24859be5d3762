"""Row 10: files that want more memory than their pictures. Refused by their headers, in a process
of 4 GiB, with 64 MiB at most."""

import io
import json
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

_CHILD = """
import io, json, resource, sys, time
from pathlib import Path
from PIL import Image
Image.init()
from pipelines.sources.decoding import decode, read_header
from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.jpeg import plain_jpeg
small = io.BytesIO()
Image.new("RGB", (99, 99)).save(small, "PNG")
decode(small)
free = {free!r}
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
def peak():  # in KiB, of this program; getrusage knows the peak of the one that started it, too
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
before = peak()
began, answer = time.process_time(), None
if free:
    import pipelines.sources.image_file as image_file
    image_file.MAX_PIXELS, image_file.HEADER_BYTES, Image.MAX_IMAGE_PIXELS = 10**12, 10**12, None
with open(sys.argv[1], "rb") as file:
    for use in (read_header, plain_jpeg, decode):
        file.seek(0)
        try:
            use(file)
        except UnreadableImage as error:
            answer = str(error)
grown = peak() - before
print(json.dumps({{"refused": answer, "MiB": grown / 1024, "seconds": time.process_time() - began}}))
"""


def measured(path: Path, free: bool = False) -> dict:
    """What a process of its own makes of a file; `free`: with the limits lifted."""
    return answered(_CHILD.format(free=free), str(path))


def answered(program: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return json.loads(done.stdout)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(side: int, *before: bytes, after: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    """A PNG of zeros, as many rows of them as compress into little; chunks before and after
    them."""
    rows = zlib.compress(bytes(min(side * (3 * side + 1), 100_000_000)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(before)
        + chunk(b"IDAT", rows)
        + after
        + chunk(b"IEND", b"")
    )


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_of(side: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "JPEG"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def gif_of_many_frames(count: int) -> bytes:
    frames = [Image.new("P", (64, 64), number % 200) for number in range(20)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2)
    start = data.index(b"\x21\xf9") if b"\x21\xf9" in data else data.index(b"\x2c")
    return data[:start] + data[start:-1] * (count // 20) + b"\x3b"


def tiff_of(side: int) -> bytes:
    """One strip that begins behind the end of the file."""
    tags = [
        (256, 4, side),
        (257, 4, side),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, side),
        (279, 4, 2**31),
    ]
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
        + bytes(4)
    )


def gif_of(side: int) -> bytes:
    data = bytearray(encoded(Image.new("P", (16, 16)), "GIF"))
    data[6:10] = struct.pack("<HH", side, side)
    return bytes(data)


def text(size: int) -> bytes:
    return chunk(b"tEXt", b"Comment\0" + b"x" * size)


def packed_text(size: int) -> bytes:
    return chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(size), 9))


MIB = 2**20
REFUSED = {
    "PNG 30,000 x 30,000": lambda: png(30_000),
    "PNG 2^31 x 2^31": lambda: png(2**31 - 1),
    "JPEG 65,535 x 65,535": lambda: jpeg_of(65_535),
    "GIF 65,535 x 65,535": lambda: gif_of(65_535),
    "TIFF 60,000 x 60,000": lambda: tiff_of(60_000),
    "BMP 60,000 x 60,000": lambda: (
        b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    ),
    "PPM 99,999 x 99,999": lambda: b"P6 99999 99999 255\n" + bytes(100),
    "text of 200 MB": lambda: png(8, text(200 * MIB)),
    "text of 200 MB behind the picture": lambda: png(8, after=text(200 * MIB)),
    "JPEG with 5,000 comments of 64 kB": lambda: (
        jpeg_of(16)[:2] + (b"\xff\xfe\xff\xff" + bytes(65_533)) * 5_000 + jpeg_of(16)[2:]
    ),
    "WebP of 200 MB": lambda: (
        b"RIFF" + struct.pack("<I", 200 * MIB) + b"WEBPVP8 " + bytes(200 * MIB)
    ),
}
READ = {
    "packed profile of 1 GB": lambda: png(
        8, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**30), 9))
    ),
    "100 packed texts of 1 MB": lambda: png(8, *[packed_text(MIB - 1)] * 100),
    "packed text of 1 GB": lambda: png(8, packed_text(2**30)),
    "GIF of 10,000 frames": lambda: gif_of_many_frames(10_000),
    "JPEG with 200 MB behind it": lambda: (
        encoded(Image.new("RGB", (16, 16)), "JPEG") + bytes(200 * MIB)
    ),
}


@pytest.mark.parametrize("name", [*list(REFUSED)[:3], *READ])
def test_the_first_of_them(tmp_path, name):
    _check(tmp_path, name)


@pytest.mark.long
def test_bombs_take_no_memory(tmp_path, report):
    most = max(_check(tmp_path, name)["MiB"] for name in REFUSED | READ)
    report(
        10,
        f"{len(REFUSED)} bombs refused and {len(READ)} read, with at most {most:.0f} MiB more "
        "memory",
        len(REFUSED | READ),
    )


def _check(tmp_path: Path, name: str) -> dict:
    path = tmp_path / "bomb"
    path.write_bytes((REFUSED | READ)[name]())
    found = measured(path)
    assert (found["refused"] is not None) == (name in REFUSED), (name, found)
    assert found["MiB"] <= 64, (name, found)
    assert found["seconds"] < 10, (name, found)
    path.unlink()
    return found


@pytest.mark.long
def test_without_the_limits_a_bomb_takes_what_it_wants(tmp_path):
    """The control: the same PNG header with the limits lifted, its rows cut to 100 MB; and a text
    that is read into memory."""
    for data in (png(15_000), png(8, text(100 * MIB))):
        (tmp_path / "bomb").write_bytes(data)
        assert measured(tmp_path / "bomb", free=True)["MiB"] > 64


_FUZZ = """
import io, json, random, resource, sys, warnings
from pathlib import Path
from PIL import Image
from pipelines.sources.decoding import decode, read_header
from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.jpeg import plain_jpeg
warnings.simplefilter("ignore")
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
seeds = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
draw, answers = random.Random(int(sys.argv[3])), {"read": 0, "refused": 0}
for number in range(int(sys.argv[2])):
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.randint(1, 6)):
        place = draw.randrange(min(len(data), 200))
        new = draw.choice([draw.randbytes(1), draw.randbytes(4), b"\\xff" * 4, bytes(4), b"\\x7f\\xff"])
        data[place : place + draw.choice([1, 1, 2, 4])] = new
    data = bytes(data)
    plain_jpeg(io.BytesIO(data))
    try:
        height, width = read_header(io.BytesIO(data)).size
        if height * width < 4_000_000:  # what is larger costs time and is told by its header
            pixels, facts = decode(io.BytesIO(data))
            assert pixels.shape == (facts.height, facts.width, 3)
        answers["read"] += 1
    except UnreadableImage as error:
        assert 0 < len(str(error)) <= 120
        answers["refused"] += 1
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps(answers | {"peak MiB": int(peak.split()[1]) / 1024}))
"""


def fuzz(folder: Path, count: int, seed: int) -> dict:
    """Headers of small files of all kinds with bytes changed, in a process of its own: a crash
    would take it down."""
    folder.mkdir()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8))
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000"):
        for mode in ("RGB", "L"):
            (folder / f"{kind}-{mode}").write_bytes(encoded(noise.convert(mode), kind))
    (folder / "CMYK").write_bytes(encoded(noise.convert("CMYK"), "JPEG"))
    (folder / "alpha").write_bytes(encoded(noise.convert("RGBA"), "PNG"))
    (folder / "palette").write_bytes(encoded(noise.convert("P"), "PNG"))
    return answered(_FUZZ, str(folder), str(count), str(seed))


def test_fuzzed_headers(tmp_path):
    answers = fuzz(tmp_path / "seeds", 1_500, seed=random.randrange(10**6))
    assert min(answers["read"], answers["refused"]) > 100, answers


@pytest.mark.long
def test_20000_fuzzed_headers(tmp_path, report):
    answers = fuzz(tmp_path / "seeds", 20_000, seed=1)
    assert answers["read"] + answers["refused"] == 20_000
    what = (
        f"fuzzed headers: {answers['read']:,} read, {answers['refused']:,} refused, no crash, "
        f"peak {answers['peak MiB']:.0f} MiB"
    )
    report(10, what, 20_000)
