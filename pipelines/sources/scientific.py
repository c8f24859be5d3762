"""Images of satellites, microscopes and scanners: TIFF stacks, GeoTIFF, DICOM and NumPy files.

Their numbers are read as they are; `pixels.to_pixels` makes pixels of them. Files are not trusted:
sizes are checked against the file before memory is allocated, and no metadata but that of the
pixels is read.
"""

import importlib
import itertools
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from pipelines.extras import install_line

MAX_BYTES = 2**30
"""Size of the largest image in memory, as the numbers of its file."""
_MAX_DICOM_BYTES = 2**28  # of a file: pydicom reads all of it
_MAX_PAGES = 64  # of a TIFF, of which smaller copies aren't channels
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY_START = b"\x93NUMPY"
_DICOM_START, _DICOM_OFFSET = b"DICM", 128
_CODECS = {1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate", 50000: "zstd"}
"""Those of TIFF that are read. Others are for photos, and their decoders are large."""
_MIN_IS_WHITE, _GREY, _RGB = 0, 1, 2  # TIFF's PhotometricInterpretation
_REDUCED_OR_MASK = 0b101  # bits of TIFF's NewSubfileType
_DEFLATED = "1.2.840.10008.1.2.1.99"  # a DICOM file that unpacks to any size


@dataclass(frozen=True)
class ScientificImage:
    """An image whose numbers haven't been read yet.

    Attributes:
        format: "TIFF", "NPY" or "DICOM".
        shape: height, width and channels.
        read: returns the numbers, `[height, width, channels]` of any real type.
        range: the numbers that are black and white by the file's own account; None: by their type.
        inverted: whether the smaller numbers are the lighter ones.
        orientation: EXIF's, 1 for upright.
    """

    format: str
    shape: tuple[int, int, int]
    read: Callable[[], np.ndarray]
    range: tuple[float, float] | None = None
    inverted: bool = False
    orientation: int = 1


def open_scientific(file: BinaryIO) -> ScientificImage | None:
    """Opens a file by its header.

    Args:
        file: open for reading in binary. It has to stay open until `read` was called.

    Returns:
        The image; None for a file of another format.

    Raises:
        ValueError: its image can't be read; the text says why.
        Exception: what the packages raise of damaged files.
    """
    file.seek(0)
    start = file.read(_DICOM_OFFSET + len(_DICOM_START))
    file.seek(0)
    if start[:4] in TIFF_STARTS:
        return _open_tiff(file)
    if start[: len(_NPY_START)] == _NPY_START:
        return _open_npy(file)
    if start[_DICOM_OFFSET:] == _DICOM_START:
        return _open_dicom(file)
    return None


class _ClampedReader:
    """A file of which never more is asked than it has: a length that lies allocates nothing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))

    def __getattr__(self, name: str) -> Any:  # seek, tell, readinto
        return getattr(self._file, name)


def package(name: str, extra: str) -> ModuleType:
    """Imports a package of an extra. Raises ValueError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"needs {install_line(extra)} ({error})") from error


def check_size(shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raises ValueError if an image has no pixels, or more than `MAX_BYTES` of them."""
    if min(shape) < 1:
        raise ValueError("no pixels")
    if math.prod(shape) * dtype.itemsize > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES / 1e6:,.0f} MB of pixels")


def _check_number(dtype: np.dtype) -> None:
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise ValueError(f"numbers of type {dtype}")


def _open_tiff(file: BinaryIO) -> ScientificImage:
    """Opens a TIFF: one page with all channels, or a page for each. Other tags aren't read."""
    tifffile = package("tifffile", "tiff")
    package("imagecodecs", "tiff")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # errors are raised, or found below
    clamped = _ClampedReader(file)
    tiff = tifffile.TiffFile(clamped)
    pages = list(itertools.islice(tiff.pages, _MAX_PAGES + 1))
    first = pages[0]
    # Smaller copies and masks aren't channels, nor are pages of another form.
    pages = [
        page
        for page in pages
        if not page.subfiletype & _REDUCED_OR_MASK
        and (page.shape, page.dtype) == (first.shape, first.dtype)
    ]
    if not pages:
        raise ValueError("no page with an image")
    if len(pages) > _MAX_PAGES:
        raise ValueError(f"more than {_MAX_PAGES} pages")
    first = pages[0]
    if first.dtype is None:
        raise ValueError(f"numbers of {first.bitspersample} bits")
    if first.axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"a page of {list(first.shape)}: volumes aren't read")
    if len(pages) > 1 and first.axes != "YX":
        raise ValueError(f"{len(pages)} pages of {first.samplesperpixel} channels each")
    _check_number(first.dtype)
    height, width = first.imagelength, first.imagewidth
    shape = (height, width, max(len(pages), first.samplesperpixel))
    check_size(shape, first.dtype)
    for page in pages:
        _check_tiff_page(page, clamped.size)

    def read() -> np.ndarray:
        if len(pages) > 1:
            return np.stack([page.asarray(maxworkers=1) for page in pages], axis=2)
        numbers = first.asarray(maxworkers=1)
        if first.axes == "SYX":
            return np.moveaxis(numbers, 0, 2)
        return numbers.reshape(shape)

    orientation = first.tags.valueof(274, default=1)
    return ScientificImage(
        "TIFF", shape, read, inverted=first.photometric == _MIN_IS_WHITE, orientation=orientation
    )


def _check_tiff_page(page: Any, file_size: int) -> None:
    """Raises ValueError unless the parts of a page lie in the file and give its numbers."""
    if page.compression not in _CODECS:
        names = ", ".join(dict.fromkeys(_CODECS.values()))
        raise ValueError(f"compression {int(page.compression)}; expected one of {names}")
    if page.photometric not in (_MIN_IS_WHITE, _GREY, _RGB):
        raise ValueError(f"colours of PhotometricInterpretation {int(page.photometric)}")
    check_size(page.chunks, page.dtype)
    offsets, counts = page.dataoffsets, page.databytecounts
    if not len(offsets) == len(counts) == math.prod(page.chunked) or 0 in counts:
        raise ValueError("strips or tiles are missing")
    if any(offset + count > file_size for offset, count in zip(offsets, counts, strict=True)):
        raise ValueError("image file is truncated")
    if page.compression == 1 and sum(counts) * 8 < math.prod(page.shape) * page.bitspersample:
        raise ValueError("fewer bytes than its picture needs")


def _open_npy(file: BinaryIO) -> ScientificImage:
    """Opens an array `[height, width]` or `[height, width, channels]`."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"NumPy's format {'.'.join(map(str, version))}")
    _check_number(dtype)
    if len(shape) not in (2, 3):
        raise ValueError(f"an array {list(shape)}; expected [height, width, channels]")
    check_size(shape, dtype)
    start = file.tell()
    if file.seek(0, os.SEEK_END) - start < math.prod(shape) * dtype.itemsize:
        raise ValueError("array is truncated")

    height, width, channels = (*shape, 1)[:3]

    def read() -> np.ndarray:
        file.seek(0)
        numbers = np.lib.format.read_array(file, allow_pickle=False)
        return numbers.reshape(height, width, channels)

    return ScientificImage("NPY", (height, width, channels), read)


def _open_dicom(file: BinaryIO) -> ScientificImage:
    """Opens a DICOM file with one picture.

    Its rescale slope and intercept, or the table in their place, are applied. Its first window is
    the range; without one, that is what its bits can hold.
    """
    pydicom = package("pydicom", "dicom")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    if file.seek(0, os.SEEK_END) > _MAX_DICOM_BYTES:
        raise ValueError(f"more than {_MAX_DICOM_BYTES / 1e6:,.0f} MB")
    file.seek(_DICOM_OFFSET + len(_DICOM_START))
    meta = pydicom.filereader.read_dataset(
        file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2
    )
    if meta.get("TransferSyntaxUID") == _DEFLATED:
        raise ValueError("a deflated DICOM file")

    def open_dataset(header: bool) -> Any:
        file.seek(0)
        return pydicom.dcmread(_ClampedReader(file), stop_before_pixels=header)

    header = open_dataset(True)
    frames = int(header.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ValueError(f"{frames:,} frames; volumes aren't read")
    kind = str(header.get("PhotometricInterpretation", ""))
    if kind.startswith("PALETTE"):
        raise ValueError("colours of a palette")
    shape = (int(header.Rows), int(header.Columns), int(header.get("SamplesPerPixel", 1)))
    check_size(shape, np.dtype(np.float64))

    def read() -> np.ndarray:
        dataset = open_dataset(False)
        numbers = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset)
        return numbers.reshape(shape)

    return ScientificImage(
        "DICOM", shape, read, _dicom_range(header), inverted=kind == "MONOCHROME1"
    )


def _dicom_range(header: Any) -> tuple[float, float] | None:
    """Returns the numbers that a viewer shows in black and white (DICOM PS3.3, C.11.2.1.2)."""
    centres, widths = header.get("WindowCenter"), header.get("WindowWidth")
    if centres is not None and widths is not None:
        centre, width = (float(np.ravel(each)[0]) for each in (centres, widths))
        if width > 1.0:
            low = centre - 0.5 - (width - 1.0) / 2.0
            return low, low + width - 1.0
    if "ModalityLUTSequence" in header:
        return None
    bits = int(header.BitsStored)
    lowest = -(2 ** (bits - 1)) if header.get("PixelRepresentation") else 0
    slope, intercept = (
        float(header.get("RescaleSlope", 1)),
        float(header.get("RescaleIntercept", 0)),
    )
    ends = sorted(slope * end + intercept for end in (lowest, lowest + 2**bits - 1))
    return ends[0], ends[1]
