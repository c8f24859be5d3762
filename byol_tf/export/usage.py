"""`USAGE.md`: how to use each exported file, in code that its proof runs. Needs no TensorFlow."""

from pathlib import Path

from byol_tf.export.formats import FORMS, ExportFormat, heading, read_proofs
from byol_tf.runs.files import write_atomically

_PHOTO = """

photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
print(represent(photo).shape)
"""

_SNIPPETS = {
    "saved_model": '''import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

encoder = tf.saved_model.load("encoder/1")


def represent(photo):
    """A Pillow image in RGB, of any size -> float32 [d]."""
    return encoder.serve(np.asarray(photo)[None]).numpy()[0]
'''
    + _PHOTO,
    "bytes": '''import tensorflow as tf

encoder = tf.saved_model.load("encoder/1")


def represent(photo):
    """The bytes of a JPEG or PNG file -> float32 [d]."""
    return encoder.serve_bytes(tf.constant([photo])).numpy()[0]


with open("photo.jpg", "rb") as file:
    print(represent(file.read()).shape)
''',
    "keras": '''import keras
import numpy as np
from PIL import Image, ImageOps

encoder = keras.saving.load_model("encoder.keras")


def represent(photo):
    """A Pillow image in RGB, of any size -> float32 [d]."""
    return encoder(np.asarray(photo)[None], training=False).numpy()[0]
'''
    + _PHOTO,
    "litert": '''import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

encoder = Interpreter("{name}").get_signature_runner("serve")


def represent(photo):
    """A Pillow image in RGB, of any size -> float32 [d]."""
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    square = photo.crop((left, top, left + side, top + side)).resize(({size}, {size}), Image.Resampling.BILINEAR)
    return encoder(images=np.asarray(square)[None])["representations"][0]
'''
    + _PHOTO,
    "onnx": '''import numpy as np
import onnxruntime
from PIL import Image, ImageOps

encoder = onnxruntime.InferenceSession("encoder.onnx", providers=["CPUExecutionProvider"])


def represent(photo):
    """A Pillow image in RGB, of any size -> float32 [d]."""
    return encoder.run(None, {{"images": np.asarray(photo)[None]}})[0][0]
'''
    + _PHOTO,
}

_TUNING = """```python
import keras

encoder = keras.saving.load_model("encoder.keras")
encoder.trainable = True  # False: only the new layer learns
model = keras.Sequential([encoder, keras.layers.Dense(10)])
model.compile(
    keras.optimizers.Adam(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"],
    jit_compile=False,  # XLA, which Keras takes on a GPU, can't do the antialiased resize that is inside
)
model.fit(images, labels, epochs=5)  # uint8 [N, H, W, 3] of any one size, class numbers [N]
```
"""

_INSIDE = (
    "Images of one size go together, uint8 `[N, H, W, 3]`; resize, crop and normalisation "
    "are inside."
)

_SERVING = """```sh
saved_model_cli show --dir encoder/1 --all   # comes with TensorFlow
```

TensorFlow Serving takes the folder `encoder/`, with the `1/` in it, as `--model_base_path`; `signature_name` in a request says
which of the two: `serve`, the default, or `serve_bytes`, where its REST interface takes a file's bytes as `{"b64": "..."}`."""

_BYTES = """Strings `[N]`, each a file of its own size: JPEG, PNG, BMP, or a GIF's first picture. An alpha channel is dropped. Where one
of them can't be decoded the whole call is an InvalidArgumentError, and no image of it gets an answer: send files that may be broken
one by one."""

_OPENING = """# Using this encoder

Each snippet is run from this folder, on a `photo.jpg` in it; none needs byol_tf. All give the same float32 numbers a photo, up to
the precision of the file: compare them by cosine, or put a linear layer behind them.

EXIF orientation has to be applied before the encoder sees a photo, as `ImageOps.exif_transpose` does it here. Nothing in
TensorFlow, LiteRT or ONNX does it, `serve_bytes` included: a phone's photo that lies on its side in the file is encoded lying on
its side."""


def snippet(form: ExportFormat, size: int) -> str:
    """The Python code that uses a form, with the export folder as the current one.

    It reads a `photo.jpg` there, prints the shape of its representation, and leaves a function
    `represent`: of a file's bytes for the form `bytes`, of a Pillow image for all others.
    """
    return _SNIPPETS[form.snippet].format(name=form.name, size=size)


def write_usage(folder: Path, size: int) -> None:
    """Writes `USAGE.md` on those of the forms that a folder holds, by its `proof.json`, replacing
    what is there.

    Args:
        folder: of the export.
        size: side of the encoder's input.
    """
    text = _usage(
        [form for form in FORMS if (folder / form.name).exists()], read_proofs(folder), size
    )
    write_atomically(folder / "USAGE.md", text)


def _usage(forms: list[ExportFormat], proofs: dict[str, dict], size: int) -> str:
    parts, sections = [_OPENING], {}
    for form in forms:
        sections.setdefault(form.snippet, []).append(form)
    for first, *others in sections.values():
        parts += [
            f"## {first.what}",
            f"`pip install {first.install}`",
            f"```python\n{snippet(first, size)}```",
        ]
        parts += [f"The same with `{other.name}` is {heading(other, proofs)}." for other in others]
        parts += _notes(first, size)
    return "\n\n".join(parts) + "\n"


def _notes(form: ExportFormat, size: int) -> list[str]:
    if form.snippet == "litert":
        fixed = (
            f"It takes one image of {size} x {size} pixels, uint8 `[1, {size}, {size}, 3]`: "
            "phones' accelerators take no changing size."
        )
        return [
            f"{fixed}\nCrop and resize are outside, and have to be as here: the centred square, "
            "resized with antialiasing."
        ]
    notes = {
        "saved_model": [_INSIDE, _SERVING],
        "bytes": [_BYTES],
        "keras": [
            _INSIDE,
            "To go on learning with labels (batch statistics stay as they are):",
            _TUNING.strip(),
        ],
        "onnx": [_INSIDE],
    }
    return notes[form.snippet]
