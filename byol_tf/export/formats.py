"""Export formats: their files, the code that uses each, and the tolerances that each has to meet.

A new format takes entries in `FORMATS`, with its `Snippet`, and `_REQUIRED_PACKAGES`, a module with
its writer, and lines in `writing.WRITERS` and `classifier.CLASSIFIER_WRITERS`.
"""

import dataclasses
import importlib.util
from dataclasses import dataclass
from string import Template

from byol_tf.runs.files import SAVED_MODEL_VERSION
from pipelines.sources import RGB, PixelFormat


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
class Subject:
    """Names of an exported model in its files and in the code that uses them.

    Attributes:
        name: stem of the files, and of the model in code.
        function: that the code defines.
        returns: what that function returns for a photo.
        output: name of the output in LiteRT and ONNX.
        imports: lines at the top of the code.
        ending: what the code does with `photo`, the content of `photo.jpg`.
    """

    name: str
    function: str
    returns: str
    output: str
    imports: str
    ending: str


ENCODER = Subject(
    "encoder",
    "represent",
    "float32 features",
    "representations",
    imports="",
    ending="print(represent(photo).shape)",
)
CLASSIFIER = Subject(
    "classifier",
    "classify",
    "the probability of each class, float32 [classes],",
    "probabilities",
    imports="import json\n\n",
    ending="""with open("classes.json", encoding="utf-8") as file:
    classes = json.load(file)
probabilities = classify(photo)
print(classes[probabilities.argmax()], probabilities.max())""",
)


@dataclass(frozen=True)
class Snippet:
    """Python code that uses an exported file, and what `USAGE.md` says about it.

    `$path` and `$size` in code and notes stand for the path to load and the side of the encoder's
    input in pixels. The other names are attributes of the `Subject`, or depend on the images: see
    `_image_words`.

    Attributes:
        code: run in the export folder, it defines the subject's function, which takes one photo,
            and prints what it returns for `photo.jpg`.
        install: the packages that the code needs, as arguments of `pip install`.
        notes: Markdown paragraphs that follow the code.
        takes_bytes: whether the function takes the bytes of an image file; otherwise it takes a
            Pillow image in RGB, or an array of other images.
        encoder_notes: further paragraphs, for encoders only.
    """

    code: str
    install: str
    notes: tuple[str, ...]
    takes_bytes: bool = False
    encoder_notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportFormat:
    """One way to use one exported file; a file with two signatures has two.

    Attributes:
        name: the value of `--format` that writes the file.
        file: name of the file or folder in the export folder.
        title: heading of its section in `USAGE.md`, and its key in `verification.json`.
        snippet: the code that uses it.
        tolerance: limits of how far its representations may differ.
        subject: what is exported.
    """

    name: str
    file: str
    title: str
    snippet: Snippet
    tolerance: Tolerance
    subject: Subject = ENCODER

    @property
    def path(self) -> str:
        """The path to load, relative to the export folder."""
        return f"{self.file}/{SAVED_MODEL_VERSION}" if self.name == "saved_model" else self.file

    @property
    def uses_tensorflow(self) -> bool:
        """True if the snippet imports TensorFlow or Keras."""
        return "tensorflow" in self.snippet.install

    def code(self, size: int, pixels: PixelFormat = RGB) -> str:
        """Returns the snippet's code.

        Args:
            size: side of the encoder's input in pixels.
            pixels: channels and depth of its images.
        """
        return self._substitute(self.snippet.code, size, pixels)

    def notes(self, size: int, pixels: PixelFormat = RGB) -> list[str]:
        """Returns the snippet's notes; the arguments are as of `code`."""
        notes = self.snippet.notes
        if self.subject is ENCODER:
            notes += self.snippet.encoder_notes
        return [self._substitute(note, size, pixels) for note in notes]

    def _substitute(self, text: str, size: int, pixels: PixelFormat) -> str:
        text = text.replace("$square", _RGB_SQUARE if pixels.is_rgb else _ARRAY_SQUARE)
        return Template(text).substitute(
            dataclasses.asdict(self.subject) | _image_words(pixels), path=self.path, size=size
        )


def _image_words(pixels: PixelFormat) -> dict[str, object]:
    """Returns what the code for images says: of Pillow's in RGB, or of arrays."""
    words: dict[str, object] = {"dtype": pixels.dtype.name, "channels": pixels.channels}
    if pixels.is_rgb:
        return words | {
            "pillow": "from PIL import Image, ImageOps\n",
            "resizer": "from PIL import Image, ImageOps\n",
            "image": "Pillow image in RGB of any size",
            "load": 'ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")',
            "signatures": "`serve` (the default) or `serve_bytes`; the REST interface takes a\n"
            'file\'s bytes as `{"b64": "..."}`.',
        }
    return words | {
        "pillow": "",
        "resizer": "from PIL import Image\n",
        "image": f"{pixels.dtype} array [H, W, {pixels.channels}] of any size",
        "load": 'np.load("photo.npy")',
        "signatures": "`serve`, the default.",
    }


_RGB_SQUARE = """    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    square = photo.crop((left, top, left + side, top + side))
    square = square.resize(($size, $size), Image.Resampling.BILINEAR)
"""
_ARRAY_SQUARE = """    height, width, _ = photo.shape
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    square = photo[top : top + side, left : left + side].astype(np.float32)
    square = np.stack(
        [
            Image.fromarray(channel).resize(($size, $size), Image.Resampling.BILINEAR)
            for channel in np.ascontiguousarray(np.moveaxis(square, 2, 0))
        ],
        axis=2,
    )
    square = np.rint(square).astype(photo.dtype)
"""
_PHOTO = """

photo = $load
$ending
"""
_ANY_SIZE = (
    "Images of one size can be passed as a batch, $dtype `[N, H, W, $channels]`. Resizing, "
    "cropping and normalisation are part of the model."
)

_SAVED_MODEL = Snippet(
    '''${imports}import numpy as np
import tensorflow as tf
${pillow}
$name = tf.saved_model.load("$path")


def $function(photo):
    """Returns $returns for a $image."""
    return $name.serve(np.asarray(photo)[None]).numpy()[0]
'''
    + _PHOTO,
    "tensorflow pillow",
    (
        _ANY_SIZE,
        """```sh
saved_model_cli show --dir $path --all   # comes with TensorFlow
```

For TensorFlow Serving, pass the folder `$name/` (it contains `1/`) as `--model_base_path`. A
request's `signature_name` is $signatures""",
    ),
)

_SAVED_MODEL_BYTES = Snippet(
    '''${imports}import tensorflow as tf

$name = tf.saved_model.load("$path")


def $function(photo):
    """Returns $returns for the bytes of a JPEG or PNG file."""
    return $name.serve_bytes(tf.constant([photo])).numpy()[0]


with open("photo.jpg", "rb") as file:
    photo = file.read()
$ending
''',
    "tensorflow pillow",
    (
        """`serve_bytes` takes strings `[N]`. Each is the content of a JPEG, PNG, BMP or GIF file
(its first frame) of its own size; an alpha channel is dropped. If one file can't be decoded, the
whole call raises InvalidArgumentError and returns nothing: send files that may be broken
one at a time.""",
    ),
    takes_bytes=True,
)

_KERAS = Snippet(
    '''${imports}import keras
import numpy as np
${pillow}
$name = keras.saving.load_model("$path")


def $function(photo):
    """Returns $returns for a $image."""
    return keras.ops.convert_to_numpy($name(np.asarray(photo)[None], training=False))[0]
'''
    + _PHOTO,
    "tensorflow pillow",
    (_ANY_SIZE,),
    encoder_notes=(
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
model.fit(images, labels, epochs=5)  # $dtype [N, H, W, $channels]; classes [N], or [N, h, w]
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
    '''${imports}import numpy as np
from ai_edge_litert.interpreter import Interpreter
${resizer}
$name = Interpreter("$path").get_signature_runner("serve")


def $function(photo):
    """Returns $returns for a $image."""
$square    return $name(images=np.asarray(square)[None])["$output"][0]
'''
    + _PHOTO,
    "ai-edge-litert pillow",
    (
        """It takes one image of $size x $size pixels, $dtype `[1, $size, $size, $channels]`, as
accelerators of phones need a fixed size. Crop and resize the photo as above: the centred square,
resized with antialiasing.""",
    ),
)

_ONNX = Snippet(
    '''${imports}import numpy as np
import onnxruntime
${pillow}
$name = onnxruntime.InferenceSession("$path", providers=["CPUExecutionProvider"])


def $function(photo):
    """Returns $returns for a $image."""
    return $name.run(None, {"images": np.asarray(photo)[None]})[0][0]
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
CLASSIFIER_FORMATS = tuple(
    dataclasses.replace(
        export_format, file=export_format.file.replace("encoder", "classifier"), subject=CLASSIFIER
    )
    for export_format in FORMATS
    if export_format.file != INT8_FILE
)
"""The same for a classifier. There is none in int8: it changes probabilities too much."""
FORMAT_NAMES = tuple(dict.fromkeys(export_format.name for export_format in FORMATS))
DEFAULT_FORMATS = ("saved_model", "keras")
"""Written at the end of every run, as they need no further package."""

_REQUIRED_PACKAGES = {
    "litert": {"ai_edge_litert": "ai-edge-litert"},
    "onnx": {"tf2onnx": "tf2onnx", "onnx": "onnx", "onnxruntime": "onnxruntime"},
}
"""Name of a format -> module -> package, of what isn't among byol_tf's own requirements."""


def select_formats(
    names: tuple[str, ...],
    pixels: PixelFormat = RGB,
    formats: tuple[ExportFormat, ...] = FORMATS,
) -> list[ExportFormat]:
    """Returns the formats with one of these names, in their order.

    Those that decode image files are for RGB of 8 bits only.
    """
    return [
        each
        for each in formats
        if each.name in names and (pixels.is_rgb or not each.snippet.takes_bytes)
    ]


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
