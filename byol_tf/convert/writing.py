"""Folder of a converted encoder: exports, config and model card."""

import json
import shlex
from pathlib import Path
from typing import Any

import tensorflow as tf

from byol_tf import __version__
from byol_tf.config.schema import Config
from byol_tf.convert.architecture import IMAGE_SIZE
from byol_tf.convert.assign import Converted
from byol_tf.errors import ConversionError, code_span
from byol_tf.export.model_card import front_matter, preparation
from byol_tf.export.saved_model import export_encoder
from byol_tf.models.inference import inference_model, plain_encoder
from byol_tf.runs.files import SAVED_MODEL_VERSION, atomic_folder, sha256, why_no_folder


def write_folder(converted: Converted, source: Path, out: Path) -> list[str]:
    """Writes the folder of a conversion: exports, config and model card.

    Args:
        converted: the networks.
        source: the file that they are from.
        out: the folder; new or empty. It is complete or isn't there.

    Returns:
        The names of the files in it.

    Raises:
        ConversionError: if the folder isn't empty or can't be written.
    """
    check_out(out)
    tree = _config_tree(converted, out)
    config = Config.model_validate(tree)
    try:
        with atomic_folder(out) as folder:
            files = _write_networks(converted, folder, config)
            (folder / "config.json").write_text(
                json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            card = _card(converted, config, source.name, sha256(source), files, out)
            (folder / "README.md").write_text(card, encoding="utf-8")
    except (OSError, tf.errors.OpError) as error:  # TensorFlow's own of a full disk
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ConversionError(f"--out {out}: can't be written: {reason}") from error
    return ["README.md", "USAGE.md", "config.json", *files]


def check_out(out: Path) -> None:
    """Raises `ConversionError` unless the folder is new or empty."""
    if reason := why_no_folder(out):
        raise ConversionError(f"--out {out}: expected a new or empty folder; {reason}")
    if out.exists() and any(out.iterdir()):
        raise ConversionError(f"--out {out}: expected a new or empty folder; it isn't empty")


def _write_networks(converted: Converted, folder: Path, config: Config) -> dict[str, str]:
    """Writes the networks; returns the name of each file with its inputs and outputs."""
    preparation = config.views.preparation
    export_encoder(inference_model(converted.encoder, *preparation), folder)
    signature = (
        "images `[N, H, W, 3]` of any size, 0 to 255, to representations `[N, "
        f"{converted.encoder.output_shape[-1]}]`"
    )
    files = {
        f"encoder/{SAVED_MODEL_VERSION}": f"SavedModel: {signature}",
        "encoder.keras": f"Keras: {signature}",
    }
    heads = dict(converted.heads)
    if converted.target_encoder is not None:
        (folder / "target").mkdir()
        encoder = plain_encoder(converted.target_encoder)
        inference_model(encoder, *preparation).save(folder / "target" / "encoder.keras")
        files["target/encoder.keras"] = f"target network: {signature}"
        heads |= {f"target/{name}": head for name, head in converted.target_heads.items()}
    for name, head in heads.items():
        plain_encoder(head).save(folder / f"{name}.keras")
        files[f"{name}.keras"] = f"`[N, {head.input_shape[-1]}]` to `[N, {head.output_shape[-1]}]`"
    return files


def _card(
    converted: Converted,
    config: Config,
    source: str,
    sha256: str,
    files: dict[str, str],
    out: Path,
) -> str:
    """Returns the model card in Markdown.

    Args:
        converted: the networks.
        config: the config in the folder.
        source: name of the file that the networks are from.
        sha256: digest of that file in hexadecimal.
        files: name of each file with a network -> its inputs and outputs.
        out: the folder, as the commands in the card name it.
    """
    name, width = converted.architecture
    padding = {"same": "TensorFlow's (`same`)", "symmetric": "PyTorch's (`symmetric`)"}
    skipped = (
        f"Not converted: {', '.join(converted.skipped)}."
        if converted.skipped
        else "All tensors of the file were converted."
    )
    assumed = f"* Assumed: {converted.assumed}.\n" if converted.assumed else ""
    encoder, settings = (shlex.quote(str(out / file)) for file in ("encoder.keras", "config.json"))
    rows = "\n".join(f"| `{file}` | {signature} |" for file, signature in files.items())
    return f"""{front_matter(name, [name])}
# {name}{f" ({width:g}x)" if width != 1 else ""}, converted

From {code_span(source)}: {converted.origin}. SHA-256 `{sha256}`. Converted to float32 by byol_tf
{__version__}; the values are unchanged. The terms of use of the weights are those of their
publisher.

| file | inputs and outputs |
|---|---|
{rows}

* {converted.encoder.count_params():,} parameters in the encoder, with moving statistics; padding is {padding[converted.padding]}.
* {preparation(config)}
  On square images of {config.views.size} px the representations are those of the original network; on other images
  they differ as far as the original's resizing and cropping differs from this.
{assumed}* {skipped}

```python
import tensorflow as tf

encoder = tf.saved_model.load({str(out / "encoder" / SAVED_MODEL_VERSION)!r})
representations = encoder.serve(images)  # uint8 [N, H, W, 3]
```

```sh
python -m byol_tf.evaluate knn --encoder {encoder} --config {settings} --set data.root=photos --out evaluation
python -m byol_tf.train --config {settings} --set data.root=photos   # continues training from this encoder
```
"""


def _config_tree(converted: Converted, out: Path) -> dict:
    """Returns a config that continues training from the encoder, on a folder of photos.

    Its hyper-parameters are those of `configs/photos.json`.
    """
    tree: dict[str, Any] = {
        "about": {
            "reproduces": "No paper: pre-training on one's own photos, starting from the "
            f"encoder in this folder, {converted.origin}.",
            "hardware": "Not run.",
            "time": "Not measured.",
            "accuracy": "Depends on the photos; the probe before the first step is the converted "
            "encoder's own.",
            "measured": "no",
        },
        "name": "converted",
        "data": {"source": "folder", "root": "photos"},
        "views": {"size": IMAGE_SIZE},
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
        tree[name] = {"hidden_size": head.get_layer(f"{name}_hidden").units}
        if name == "projector":
            tree[name]["output_size"] = head.output_shape[-1]
    return tree
