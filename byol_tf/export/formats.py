"""What an export can be: its files, what writes and runs each, how far it may differ. Needs no
TensorFlow."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from byol_tf.runs.files import write_atomically


@dataclass(frozen=True)
class ExportFormat:
    """One way to use one exported file.

    Attributes:
        format: as the command calls it.
        name: of the file or folder inside the export folder.
        what: the heading of its snippet.
        snippet: key of `usage.py`'s snippets.
        install: what its user installs.
        modules: what of that the snippet imports; its proof sees these, what they require, and
            nothing else.
        difference: largest difference from the run's own representations that passes, as a share of
            their largest value.
        cosine: smallest cosine between both that passes.
        same_neighbour: smallest share of images that passes whose nearest neighbour is the same
            one.
    """

    format: str
    name: str
    what: str
    snippet: str
    install: str
    modules: tuple[str, ...]
    difference: float
    cosine: float
    same_neighbour: float


INT8 = "encoder-int8.tflite"
_TENSORFLOW = ("tensorflow pillow", ("tensorflow", "numpy", "PIL"))
_LITERT = ("ai-edge-litert pillow", ("ai_edge_litert", "numpy", "PIL"))

# The same operations give the same numbers but for the order of sums. LiteRT's images are resized
# by Pillow, to whole numbers; float16 has 11 bits, int8 has 8.
FORMS = (
    ExportFormat(
        "saved_model",
        "encoder",
        "SavedModel: uint8 images",
        "saved_model",
        *_TENSORFLOW,
        1e-3,
        0.9999,
        0.98,
    ),
    ExportFormat(
        "saved_model",
        "encoder",
        "SavedModel: bytes of JPEG and PNG files",
        "bytes",
        *_TENSORFLOW,
        1e-3,
        0.9999,
        0.98,
    ),
    ExportFormat("keras", "encoder.keras", "Keras", "keras", *_TENSORFLOW, 1e-3, 0.9999, 0.98),
    ExportFormat(
        "litert", "encoder-float32.tflite", "LiteRT, float32", "litert", *_LITERT, 0.05, 0.999, 0.95
    ),
    ExportFormat(
        "litert",
        "encoder-float16.tflite",
        "LiteRT, float16 weights",
        "litert",
        *_LITERT,
        0.05,
        0.999,
        0.95,
    ),
    ExportFormat("litert", INT8, "LiteRT, int8", "litert", *_LITERT, 0.5, 0.98, 0.95),
    ExportFormat(
        "onnx",
        "encoder.onnx",
        "ONNX",
        "onnx",
        "onnxruntime pillow",
        ("onnxruntime", "numpy", "PIL"),
        1e-3,
        0.9999,
        0.98,
    ),
)
FORMATS = tuple(dict.fromkeys(form.format for form in FORMS))
OF_EVERY_RUN = ("saved_model", "keras")
"""Written at the end of each run: they need no further package."""

_NEEDED = {
    "litert": {"ai_edge_litert": "ai-edge-litert"},
    "onnx": {"tf2onnx": "tf2onnx", "onnx": "onnx", "onnxruntime": "onnxruntime"},
}


def select_formats(formats: tuple[str, ...]) -> list[ExportFormat]:
    """The forms of some formats, in order."""
    return [form for form in FORMS if form.format in formats]


def missing_packages(formats: tuple[str, ...]) -> dict[str, list[str]]:
    """Format -> packages that writing and proving it needs and that aren't installed."""
    missing = {
        name: [
            package
            for module, package in _NEEDED.get(name, {}).items()
            if importlib.util.find_spec(module) is None
        ]
        for name in formats
    }
    return {name: packages for name, packages in missing.items() if packages}


def read_proofs(export: Path) -> dict[str, dict]:
    """Heading of each form -> what was measured of it (see `proof.Proof`), of files that are there;
    {} where nothing was measured."""
    try:
        proofs = json.loads((export / "proof.json").read_text(encoding="utf-8"))
        return {what: facts for what, facts in proofs.items() if (export / facts["name"]).exists()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def heading(form: ExportFormat, proofs: dict[str, dict]) -> str:
    """What a form is called on pages for people: an int8 file says what of it is int8, if that is
    known."""
    int8 = proofs.get(form.what, {}).get("int8")
    return form.what if int8 is None else f"{form.what} ({int8})"


def record_proofs(export: Path, proofs: dict[str, dict]) -> None:
    """Writes what was measured now, and keeps what was measured of other files."""
    now = {facts["name"] for facts in proofs.values()}
    kept = {what: facts for what, facts in read_proofs(export).items() if facts["name"] not in now}
    write_atomically(export / "proof.json", json.dumps(kept | proofs, indent=2) + "\n")
