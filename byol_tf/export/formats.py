"""Export formats: their files, the code that uses each, and the tolerances that each has to meet.

A new format takes an entry in `FORMATS` with its `Snippet`, a module with its writer, and a line in
`writing.WRITERS`.
"""

import importlib.util
from dataclasses import dataclass
from string import Template

from byol_tf.runs.files import SAVED_MODEL_VERSION


@dataclass(frozen=True)
class Tolerance:
    """Limits of how far an exported file may differ from the run's own encoder.

    Attributes:
        difference: the largest absolute difference that passes, relative to the largest absolute
            value of all representations.
        cosine: the smallest cosine similarity that passes.
        same_neighbour: the smallest fraction of images that may keep their nearest neighbour.
    """

    difference: float
    cosine: float
    same_neighbour: float


@dataclass(frozen=True)
class Snippet:
    """Python code that uses an exported file, and what `USAGE.md` says about it.

    `$path` and `$size` in code and notes stand for the path to load and the side of the encoder's
    input in pixels.

    Attributes:
        code: run in the export folder, it defines `represent`, which takes one photo and returns
            float32 `[d]` or `[h, w, c]`, and prints the shape of that of `photo.jpg`.
        install: the packages that the code needs, as arguments of `pip install`.
        notes: Markdown paragraphs that follow the code.
        takes_bytes: whether `represent` takes the bytes of an image file; otherwise it takes a
            Pillow image in RGB.
    """

    code: str
    install: str
    notes: tuple[str, ...]
    takes_bytes: bool = False


@dataclass(frozen=True)
class ExportFormat:
    """One way to use one exported file; a file with two signatures has two.

    Attributes:
        name: the value of `--format` that writes the file.
        file: name of the file or folder in the export folder.
        title: heading of its section in `USAGE.md`, and its key in `verification.json`.
        snippet: the code that uses it.
        tolerance: limits of how far its representations may differ.
    """

    name: str
    file: str
    title: str
    snippet: Snippet
    tolerance: Tolerance

    @property
    def path(self) -> str:
        """The path to load, relative to the export folder."""
        return f"{self.file}/{SAVED_MODEL_VERSION}" if self.name == "saved_model" else self.file

    @property
    def uses_tensorflow(self) -> bool:
        """Whether the snippet imports TensorFlow or Keras."""
        return "tensorflow" in self.snippet.install

    def code(self, size: int) -> str:
        """Returns the snippet's code for an encoder whose input has a side of `size` pixels."""
        return Template(self.snippet.code).substitute(path=self.path, size=size)

    def notes(self, size: int) -> list[str]:
        """Returns the snippet's notes for an encoder whose input has a side of `size` pixels."""
        return [Template(note).substitute(size=size) for note in self.snippet.notes]


_PHOTO = """

photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
print(represent(photo).shape)
"""
_ANY_SIZE = (
    "Images of one size can be encoded as a batch, uint8 `[N, H, W, 3]`. Resizing, cropping and "
    "normalisation are part of the model."
)

_SAVED_MODEL = Snippet(
    '''import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

encoder = tf.saved_model.load("$path")


def represent(photo):
    """Returns float32 features of a Pillow image in RGB of any size."""
    return encoder.serve(np.asarray(photo)[None]).numpy()[0]
'''
    + _PHOTO,
    "tensorflow pillow",
    (
        _ANY_SIZE,
        """```sh
saved_model_cli show --dir encoder/1 --all   # comes with TensorFlow
```

For TensorFlow Serving, pass the folder `encoder/` (it contains `1/`) as `--model_base_path`. A
request's `signature_name` is `serve` (the default) or `serve_bytes`; the REST interface takes a
file's bytes as `{"b64": "..."}`.""",
    ),
)

_SAVED_MODEL_BYTES = Snippet(
    '''import tensorflow as tf

encoder = tf.saved_model.load("$path")


def represent(photo):
    """Returns float32 features of the bytes of a JPEG or PNG file."""
    return encoder.serve_bytes(tf.constant([photo])).numpy()[0]


with open("photo.jpg", "rb") as file:
    print(represent(file.read()).shape)
''',
    "tensorflow pillow",
    (
        """`serve_bytes` takes strings `[N]`. Each is the content of a JPEG, PNG, BMP or GIF file
(its first frame) of its own size; an alpha channel is dropped. If one file can't be decoded, the
whole call raises InvalidArgumentError and returns no representations: send files that may be broken
one at a time.""",
    ),
    takes_bytes=True,
)

_KERAS = Snippet(
    '''import keras
import numpy as np
from PIL import Image, ImageOps

encoder = keras.saving.load_model("$path")


def represent(photo):
    """Returns float32 features of a Pillow image in RGB of any size."""
    return keras.ops.convert_to_numpy(encoder(np.asarray(photo)[None], training=False))[0]
'''
    + _PHOTO,
    "tensorflow pillow",
    (
        _ANY_SIZE,
        "To fine-tune it with labels (the statistics of batch normalisation stay fixed):",
        """```python
import keras

encoder = keras.saving.load_model("encoder.keras")
encoder.trainable = True  # False: train only the new layer
model = keras.Sequential([encoder, keras.layers.Dense(10, "softmax")])
model.compile(
    keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"],
    jit_compile=False,  # XLA, which Keras uses on a GPU, has no antialiased resize
)
model.fit(images, labels, epochs=5)  # uint8 [N, H, W, 3] of one size; classes [N], or [N, h, w]
```""",
        """The same code runs on JAX and PyTorch, without TensorFlow, if `KERAS_BACKEND` says so
before Keras is imported. On PyTorch the encoder is a `torch.nn.Module`:""",
        """```python
import os
os.environ["KERAS_BACKEND"] = "torch"  # or "jax"
import keras, torch
encoder = keras.saving.load_model("encoder.keras")
model = torch.nn.Sequential(encoder, torch.nn.Linear(encoder.output_shape[-1], 10))
```""",
    ),
)

_LITERT = Snippet(
    '''import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

encoder = Interpreter("$path").get_signature_runner("serve")


def represent(photo):
    """Returns float32 features of a Pillow image in RGB of any size."""
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    square = photo.crop((left, top, left + side, top + side))
    square = square.resize(($size, $size), Image.Resampling.BILINEAR)
    return encoder(images=np.asarray(square)[None])["representations"][0]
'''
    + _PHOTO,
    "ai-edge-litert pillow",
    (
        """It takes one image of $size x $size pixels, uint8 `[1, $size, $size, 3]`, as accelerators
of phones need a fixed size. Crop and resize the photo as above: the centred square, resized with
antialiasing.""",
    ),
)

_ONNX = Snippet(
    '''import numpy as np
import onnxruntime
from PIL import Image, ImageOps

encoder = onnxruntime.InferenceSession("$path", providers=["CPUExecutionProvider"])


def represent(photo):
    """Returns float32 features of a Pillow image in RGB of any size."""
    return encoder.run(None, {"images": np.asarray(photo)[None]})[0][0]
'''
    + _PHOTO,
    "onnxruntime pillow",
    (_ANY_SIZE,),
)

# The same operations in another order of summation.
_SAME_OPERATIONS = Tolerance(difference=1e-3, cosine=0.9999, same_neighbour=0.98)
# Pillow resizes to whole numbers; float16 has a significand of 11 bits.
_ROUNDED_INPUT = Tolerance(difference=0.05, cosine=0.999, same_neighbour=0.95)
_QUANTIZED = Tolerance(difference=0.5, cosine=0.98, same_neighbour=0.95)

INT8_FILE = "encoder-int8.tflite"
FORMATS = (
    ExportFormat(
        "saved_model", "encoder", "SavedModel: uint8 images", _SAVED_MODEL, _SAME_OPERATIONS
    ),
    ExportFormat(
        "saved_model",
        "encoder",
        "SavedModel: bytes of JPEG and PNG files",
        _SAVED_MODEL_BYTES,
        _SAME_OPERATIONS,
    ),
    ExportFormat("keras", "encoder.keras", "Keras", _KERAS, _SAME_OPERATIONS),
    ExportFormat("litert", "encoder-float32.tflite", "LiteRT, float32", _LITERT, _ROUNDED_INPUT),
    ExportFormat(
        "litert", "encoder-float16.tflite", "LiteRT, float16 weights", _LITERT, _ROUNDED_INPUT
    ),
    ExportFormat("litert", INT8_FILE, "LiteRT, int8", _LITERT, _QUANTIZED),
    ExportFormat("onnx", "encoder.onnx", "ONNX", _ONNX, _SAME_OPERATIONS),
)
FORMAT_NAMES = tuple(dict.fromkeys(export_format.name for export_format in FORMATS))
DEFAULT_FORMATS = ("saved_model", "keras")
"""Written at the end of every run, as they need no further package."""

_REQUIRED_PACKAGES = {
    "litert": {"ai_edge_litert": "ai-edge-litert"},
    "onnx": {"tf2onnx": "tf2onnx", "onnx": "onnx", "onnxruntime": "onnxruntime"},
}
"""Name of a format -> module -> package, of what isn't among byol_tf's own requirements."""


def select_formats(names: tuple[str, ...]) -> list[ExportFormat]:
    """Returns the entries of `FORMATS` with one of these names, in their order."""
    return [export_format for export_format in FORMATS if export_format.name in names]


def missing_packages(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Returns the packages that aren't installed, by the name of the format that needs them."""
    missing = {
        name: [
            package
            for module, package in _REQUIRED_PACKAGES.get(name, {}).items()
            if importlib.util.find_spec(module) is None
        ]
        for name in names
    }
    return {name: packages for name, packages in missing.items() if packages}
