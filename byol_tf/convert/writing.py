"""The model card of a converted encoder."""

import hashlib
import json
import shlex
from pathlib import Path

import keras

from byol_tf import __version__
from byol_tf.config.schema import Config
from byol_tf.convert.assign import Converted
from byol_tf.errors import ConversionError
from byol_tf.export.model_card import front_matter, preparation
from byol_tf.export.saved_model import export_encoder
from byol_tf.models.inference import inference_model, plain_encoder
from byol_tf.runs.files import SAVED_MODEL_VERSION, atomic_folder


def card(
    converted: Converted, config: Config, source: str, digest: str, files: dict[str, str], out: Path
) -> str:
    """Markdown: what the networks came from, what they take and give, how to use them.

    Args:
        converted: the networks.
        config: the one beside them, for size, mean and deviation.
        source: name of the file that they came from.
        digest: its SHA-256.
        files: name of each file with a network -> what it takes and gives.
        out: where the folder is.
    """
    name, width = converted.architecture
    views = config.views
    padding = {"same": "as TensorFlow pads (`same`)", "symmetric": "as PyTorch pads (`symmetric`)"}[
        converted.padding
    ]
    left_out = (
        f"Not converted: {', '.join(converted.left_out)}."
        if converted.left_out
        else "All of the file was converted."
    )
    encoder, settings = (
        shlex.quote(str(out / "encoder.keras")),
        shlex.quote(str(out / "config.json")),
    )
    rows = "\n".join(f"| `{file}` | {text} |" for file, text in files.items())
    return f"""{front_matter(name, [name])}
# {name}{f" ({width:g}x)" if width != 1 else ""}, converted

From `{source}`: {converted.origin}. SHA-256 `{digest}`. Converted by byol_tf {__version__}; the weights
are the file's, in float32. Who may use the weights, and for what, is for those to say who published them.

| file | what it takes and gives |
|---|---|
{rows}

* {converted.encoder.count_params():,} parameters in the encoder, moving statistics included; {padding}.
* {preparation(views)} On square images of {views.size} px the
  representations are those of the original network; of other images they differ as far as the original's own resizing and cropping
  does from this.
* {left_out}

```python
import tensorflow as tf

encoder = tf.saved_model.load({str(out / "encoder" / SAVED_MODEL_VERSION)!r})
representations = encoder.serve(images)  # uint8 [N, H, W, 3]
```

```sh
python -m byol_tf.evaluate knn --encoder {encoder} --config {settings} --set data.root=photos --out judged
python -m byol_tf.train --config {settings} --set data.root=photos   # goes on learning from this encoder
```
"""


SIZE = 224
"""Side in pixels of the images that both kinds of encoders were trained on. (Mean and deviation,
ImageNet's, are the config's defaults: torchvision's and deepmind-research's,
`byol/utils/dataset.py`.)"""


def check_free(out: Path) -> None:
    """`ConversionError` unless the folder can be made: it is new or empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConversionError(f"--out {out}: expected a new or empty folder; it holds something")


def write_folder(converted: Converted, source: Path, out: Path) -> list[str]:
    """Writes the folder beside its place and renames it when it is whole; returns the names of what
    is in it.

    Args:
        converted: the networks.
        source: the file that they came from.
        out: the folder: new or empty.

    Raises:
        ConversionError: if there is something, or it can't be written. Then nothing is left of it.
    """
    check_free(out)
    tree = _config_tree(converted, out)
    config = Config.model_validate(tree)
    try:
        with atomic_folder(out) as folder:
            files = _write_networks(converted, folder, config)
            (folder / "config.json").write_text(
                json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            (folder / "README.md").write_text(
                card(converted, config, source.name, _digest(source), files, out), encoding="utf-8"
            )
    except OSError as error:
        raise ConversionError(
            f"--out {out}: can't be written: {error.strerror or error}"
        ) from error
    return ["README.md", "USAGE.md", "config.json", *files]


def _write_networks(converted: Converted, folder: Path, config: Config) -> dict[str, str]:
    """Name of each file -> what it takes and gives."""
    views = config.views
    export_encoder(_inference(converted.encoder, config), folder, config)
    taken = (
        "images `[N, H, W, 3]` of any size, 0 to 255, to representations `[N, "
        f"{converted.encoder.output_shape[-1]}]`"
    )
    files = {"encoder/1": f"SavedModel: {taken}", "encoder.keras": f"Keras: {taken}"}
    heads = dict(converted.heads)
    if converted.target_encoder is not None:
        (folder / "target").mkdir()
        plain = plain_encoder(converted.target_encoder)
        inference_model(plain, *views.preparation).save(folder / "target" / "encoder.keras")
        files["target/encoder.keras"] = f"the target network's: {taken}"
        heads |= {f"target/{name}": head for name, head in converted.target_heads.items()}
    for name, head in heads.items():
        plain_encoder(head).save(folder / f"{name}.keras")
        files[f"{name}.keras"] = f"`[N, {head.input_shape[-1]}]` to `[N, {head.output_shape[-1]}]`"
    return files


def _inference(encoder: keras.Model, config: Config) -> keras.Model:
    return inference_model(encoder, *config.views.preparation)


def _config_tree(converted: Converted, out: Path) -> dict:
    """A config that goes on learning from the encoder, on a folder of photos; its rates are those
    of `configs/photos.json`."""
    tree = {
        "about": {
            "reproduces": "No paper: pre-training on one's own photos that starts from the "
            f"encoder beside this file, {converted.origin}.",
            "hardware": "Not run.",
            "time": "Not measured.",
            "accuracy": "Depends on the photos; the probe before the first step is the converted "
            "encoder's own.",
            "measured": "no",
        },
        "name": "converted",
        "data": {"source": "folder", "root": "photos"},
        "views": {"size": SIZE},
        "encoder": {
            "name": converted.architecture.name,
            "width": converted.architecture.width,
            "padding": converted.padding,
            "weights": str(out / "encoder.keras"),
        },
        "tau": {"base": 0.99},
        "optimizer": {
            "name": "adam",
            "base_learning_rate": 0.0003,
            "reference_batch_size": None,
            "schedule": "cosine",
            "warmup_epochs": 1,
        },
        "training": {"epochs": 100, "batch_size": 128},
        "probe": {"every_epochs": 5},
    }
    for name, head in converted.heads.items():
        hidden = head.get_layer(f"{name}_hidden").units
        tree[name] = {"hidden": hidden} | (
            {"outputs": head.output_shape[-1]} if name == "projector" else {}
        )
    return tree


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
