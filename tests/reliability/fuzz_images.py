"""`python -m tests.reliability.fuzz_images CORPUS [-max_total_time=600]`: atheris, guided by
coverage, against the image reader.

The corpus is a folder; an empty one is begun with a small file of each kind. What is tried:
whatever the bytes, `decode`, `read_header` and `plain_jpeg` return or raise `UnreadableImage`,
within seconds and 2 GiB; what `plain_jpeg` gives has the pixels that `decode` states. libFuzzer's
options follow the corpus. It ends with "DONE" or with the input that broke it, which it writes into
the current folder.
"""

import io
import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "pipelines.sources.decoding"]):
    from PIL import Image

    Image.init()
    from pipelines.sources import heic
    from pipelines.sources.decoding import decode, read_header
    from pipelines.sources.image_file import UnreadableImage
    from pipelines.sources.jpeg import plain_jpeg

    heic.readable()

KINDS = {
    "jpg": {},
    "png": {},
    "webp": {"quality": 50},
    "bmp": {},
    "gif": {},
    "tif": {"compression": "tiff_lzw"},
    "ppm": {},
    "jp2": {},
    "avif": {},
    "heic": {},
}
_MOST_PIXELS = 4_000_000
"""Larger pictures take a second each, in which no new path through the code is found;
`test_bombs.py` has those."""


def seeds(folder: Path) -> None:
    """A small picture of each kind and mode."""
    for mode in ("RGB", "L", "P", "RGBA", "CMYK", "I;16"):
        image = Image.linear_gradient("L").resize((9, 6)).convert("I" if mode == "I;16" else mode)
        for suffix, options in KINDS.items():
            try:
                image.save(folder / f"{mode.replace(';', '')}.{suffix}", **options)
            except (OSError, ValueError):  # not every kind has every mode
                (folder / f"{mode.replace(';', '')}.{suffix}").unlink(missing_ok=True)


def one_input(data: bytes) -> None:
    try:
        height, width = read_header(io.BytesIO(data)).size
    except UnreadableImage:
        height, width = 0, 0
    jpeg = plain_jpeg(io.BytesIO(data))
    if height * width > _MOST_PIXELS:
        return
    try:
        pixels, facts = decode(io.BytesIO(data))
    except UnreadableImage as error:
        assert 0 < len(str(error)) <= 120
        return
    assert pixels.dtype == "uint8"
    assert pixels.shape == (facts.height, facts.width, 3)
    assert jpeg is None or (jpeg == data and facts.format == "JPEG")


def main() -> None:
    warnings.simplefilter("ignore")  # Pillow's, about what is odd in a file
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        seeds(corpus)
    atheris.Setup([*sys.argv, "-timeout=20", "-rss_limit_mb=2048"], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
