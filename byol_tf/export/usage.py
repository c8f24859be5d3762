"""`USAGE.md`: code that uses each exported file."""

from pathlib import Path

from byol_tf.export.formats import FORMATS, ExportFormat
from byol_tf.export.verification import display_title, read_verifications
from byol_tf.runs.files import write_atomically

_INTRODUCTION = """# Using this encoder

Each snippet runs in this folder on a file `photo.jpg`; none needs byol_tf. All return the same
float32 {features} for a photo, up to the precision of the file. {use}

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


def write_usage(folder: Path, size: int, maps: bool = False) -> None:
    """Writes `USAGE.md` about the files in an export folder, replacing an existing one.

    Args:
        folder: the export folder; its `verification.json`, if there is one, tells how an int8 file
            is quantised.
        size: side of the encoder's input in pixels.
        maps: whether the files return maps, instead of vectors.

    Raises:
        OSError: if it can't be written.
    """
    formats = [export_format for export_format in FORMATS if (folder / export_format.file).exists()]
    introduction = _INTRODUCTION.format(**_MAP if maps else _VECTOR)
    page = usage_page(introduction, formats, read_verifications(folder), size)
    write_atomically(folder / "USAGE.md", page)


def usage_page(
    introduction: str, formats: list[ExportFormat], verifications: dict[str, dict], size: int
) -> str:
    """Returns a page of Markdown with the code that uses each format.

    Args:
        introduction: its first paragraphs.
        formats: in their order.
        verifications: as of `read_verifications`; may be empty.
        size: side of the model's input in pixels.
    """
    paragraphs = [introduction]
    by_snippet: dict[str, list[ExportFormat]] = {}
    for export_format in formats:
        by_snippet.setdefault(export_format.snippet.code, []).append(export_format)
    for first, *others in by_snippet.values():
        paragraphs += [
            f"## {display_title(first, verifications)}",
            f"`pip install {first.snippet.install}`",
            f"```python\n{first.code(size)}```",
            *(
                f"The same code with `{other.file}` uses {display_title(other, verifications)}."
                for other in others
            ),
            *first.notes(size),
        ]
    return "\n\n".join(paragraphs) + "\n"
