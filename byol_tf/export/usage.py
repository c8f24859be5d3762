"""`USAGE.md`: code that uses each exported file."""

from pathlib import Path

from byol_tf.export.formats import FORMAT_NAMES, ExportFormat, select_formats
from byol_tf.export.verification import display_title, read_verifications
from byol_tf.runs.files import write_atomically
from pipelines.sources import RGB, PixelFormat
from pipelines.sources.pixels import white

_INTRODUCTION = """# Using this encoder

Each snippet runs in this folder on a file `{file}`; none needs byol_tf. All return the same
float32 {features} for a photo, up to the precision of the file. {use}

"""
_EXIF = """\
Apply a photo's EXIF orientation before it is encoded, as `ImageOps.exif_transpose` does below.
TensorFlow, LiteRT and ONNX don't, and neither does `serve_bytes`: a phone's photo that is stored
sideways would be encoded sideways."""
_VECTOR = {
    "features": "vector",
    "use": "Compare vectors by cosine similarity,\nor train a linear classifier on them.",
}
_MAP = {
    "features": "map `[h, w, c]`",
    "use": "It has the features\nat h x w positions of the centred square of the photo, row by row "
    "from the top left, before they are\npooled into its representation.",
}


def write_usage(folder: Path, size: int, maps: bool = False, pixels: PixelFormat = RGB) -> None:
    """Writes `USAGE.md` about the files in an export folder, replacing an existing one.

    Args:
        folder: the export folder; its `verification.json`, if there is one, tells how an int8 file
            is quantised.
        size: side of the encoder's input in pixels.
        maps: whether the files return maps, instead of vectors.
        pixels: channels, depth and range of the images that they take.

    Raises:
        OSError: if it can't be written.
    """
    formats = [
        each for each in select_formats(FORMAT_NAMES, pixels) if (folder / each.file).exists()
    ]
    words = _MAP if maps else _VECTOR
    introduction = _INTRODUCTION.format(**words, file="photo.jpg" if pixels.is_rgb else "photo.npy")
    introduction += _EXIF if pixels.is_rgb else array_note(pixels)
    page = usage_page(introduction, formats, read_verifications(folder), size, pixels)
    write_atomically(folder / "USAGE.md", page)


def array_note(pixels: PixelFormat) -> str:
    """Returns a paragraph on images that aren't RGB of 8 bits: the arrays that the code takes."""
    top = f"{white(pixels.dtype):,}"
    span = "the numbers that its type can hold, or the window of a DICOM file,"
    if pixels.range is not None:
        low, high = pixels.range
        span = f"the numbers of its file from {low:,g} to {high:,g}"
    return (
        f"A photo is an array, {pixels.dtype} `[H, W, {pixels.channels}]`: {span}\n"
        f"became 0 to {top} (byol_tf's `data.range`), and those outside were cut off."
    )


def usage_page(
    introduction: str,
    formats: list[ExportFormat],
    verifications: dict[str, dict],
    size: int,
    pixels: PixelFormat = RGB,
) -> str:
    """Returns a page of Markdown with the code that uses each format.

    Args:
        introduction: its first paragraphs.
        formats: in their order.
        verifications: as of `read_verifications`; may be empty.
        size: side of the model's input in pixels.
        pixels: channels and depth of its images.
    """
    paragraphs = [introduction]
    by_snippet: dict[str, list[ExportFormat]] = {}
    for export_format in formats:
        by_snippet.setdefault(export_format.snippet.code, []).append(export_format)
    for first, *others in by_snippet.values():
        paragraphs += [
            f"## {display_title(first, verifications)}",
            f"`pip install {first.snippet.install}`",
            f"```python\n{first.code(size, pixels)}```",
            *(
                f"The same code with `{other.file}` uses {display_title(other, verifications)}."
                for other in others
            ),
            *first.notes(size, pixels),
        ]
    return "\n\n".join(paragraphs) + "\n"
