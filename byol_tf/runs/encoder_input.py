"""`input.json` beside an exported encoder: channels, depth and range of the images that it takes.

There is none for RGB of 8 bits.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from byol_tf.errors import ProtocolError
from byol_tf.runs.files import read_text, write_atomically
from pipelines.registry import MAX_CHANNELS
from pipelines.sources import PixelFormat

if TYPE_CHECKING:
    import keras

FILE_NAME = "input.json"
_CONTENT = TypeAdapter(PixelFormat)


def write_input(folder: Path, pixels: PixelFormat) -> None:
    """Writes `input.json`, or removes an earlier encoder's for RGB. Raises OSError."""
    if pixels.is_rgb:
        (folder / FILE_NAME).unlink(missing_ok=True)
    else:
        write_atomically(folder / FILE_NAME, _CONTENT.dump_json(pixels).decode() + "\n")


def read_input(file: Path) -> PixelFormat:
    """Reads an `input.json`, which may be damaged or somebody else's.

    Raises:
        ProtocolError: if it holds something else.
    """
    try:
        pixels = _CONTENT.validate_python(json.loads(read_text(file)))
        if not 1 <= pixels.channels <= MAX_CHANNELS or pixels.depth not in (8, 16):
            raise ValueError(f"{pixels.channels} channels of {pixels.depth} bits")
        if pixels.range is not None and not pixels.range[0] < pixels.range[1]:
            raise ValueError(f"the range {list(pixels.range)}")
        return pixels
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ProtocolError(
            f"{file}: expected channels, depth and range of an encoder's images; received {reason}"
        ) from error


def find_input(folders: Iterable[Path]) -> Path | None:
    """Returns the first `input.json` in some folders."""
    return next((folder / FILE_NAME for folder in folders if (folder / FILE_NAME).is_file()), None)


def model_input(model: "keras.Model") -> PixelFormat:
    """Returns channels and depth of the images that an inference model takes, without range."""
    (images,) = model.inputs
    return PixelFormat(images.shape[3], 16 if images.dtype == "uint16" else 8)


def check_input(model: "keras.Model", pixels: PixelFormat, label: str) -> None:
    """Raises `ProtocolError` unless a model takes images of these channels and depth."""
    received = model_input(model)
    if (received.channels, received.depth) != (pixels.channels, pixels.depth):
        raise ProtocolError(
            f"{label}: it takes images of {received.channels} channels and {received.depth} bits, "
            f"and {FILE_NAME} in its folder has to say so, as an export writes it; "
            f"received {pixels.channels} channels and {pixels.depth} bits"
        )
