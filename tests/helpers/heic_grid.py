"""Writer of a HEIC with four tiles, as telephones make them.

No encoder for Python writes these: the boxes are made by hand (ISO 14496-12 and 23008-12).
"""

import io
import struct

import numpy as np
from PIL import Image

TILE = 64
GREYS = (30, 90, 150, 210)


def grid() -> bytes:
    """Returns a file of 128 x 128 pixels; each quarter is one of `GREYS` with white lines.

    Needs pillow-heif to be registered.
    """
    files = [_tile(grey) for grey in GREYS]
    pixels = [_box_of(file, b"mdat")[8:] for file in files]
    tiled = struct.pack(">BBBBHH", 0, 0, 1, 1, 2 * TILE, 2 * TILE)
    entries = [_full(b"infe", 2, struct.pack(">HH", item, 0), b"hvc1\0") for item in (1, 2, 3, 4)]
    entries.append(_full(b"infe", 2, struct.pack(">HH", 5, 0), b"grid\0"))
    sizes = [_full(b"ispe", 0, struct.pack(">II", side, side)) for side in (TILE, 2 * TILE)]
    properties = _box(
        b"ipco", _box_of(files[0], b"hvcC"), *sizes, _full(b"pixi", 0, bytes([3, 8, 8, 8]))
    )
    owners = b"".join(
        struct.pack(">HB3B", item, 3, 0x81, 2, 4) for item in (1, 2, 3, 4)
    ) + struct.pack(">HB2B", 5, 2, 3, 4)
    boxes = [
        _full(b"hdlr", 0, bytes(4), b"pict", bytes(13)),
        _full(b"pitm", 0, struct.pack(">H", 5)),
        _full(b"iinf", 0, struct.pack(">H", 5), *entries),
        _full(b"iref", 0, _box(b"dimg", struct.pack(">6H", 5, 4, 1, 2, 3, 4))),
        _box(b"iprp", properties, _full(b"ipma", 0, struct.pack(">I", 5), owners)),
        _box(b"idat", tiled),
    ]

    def head(start: int) -> bytes:
        locations = [struct.pack(">HH", 0x4400, 5)]
        for item, data in enumerate(pixels, start=1):
            locations.append(struct.pack(">4H2I", item, 0, 0, 1, start, len(data)))
            start += len(data)
        locations.append(struct.pack(">4H2I", 5, 1, 0, 1, 0, len(tiled)))
        return _box(b"ftyp", b"heic", bytes(4), b"mif1heic") + _full(
            b"meta", 0, *boxes, _full(b"iloc", 1, *locations)
        )

    return head(len(head(0)) + 8) + _box(b"mdat", *pixels)


def _tile(grey: int) -> bytes:
    picture, buffer = np.full((TILE, TILE, 3), grey, np.uint8), io.BytesIO()
    picture[::8] = 255
    Image.fromarray(picture).save(buffer, "HEIF", quality=90)
    return buffer.getvalue()


def _box(name: bytes, *boxes: bytes) -> bytes:
    body = b"".join(boxes)
    return struct.pack(">I", 8 + len(body)) + name + body


def _full(name: bytes, version: int, *boxes: bytes) -> bytes:
    return _box(name, bytes([version, 0, 0, 0]), *boxes)


def _box_of(file: bytes, name: bytes) -> bytes:
    start = file.index(name) - 4
    return file[start : start + struct.unpack(">I", file[start : start + 4])[0]]
