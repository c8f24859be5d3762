"""The model card of a converted encoder."""

import shlex
from pathlib import Path

from byol_tf import __version__
from byol_tf.config import Config
from byol_tf.conversion.result import Converted
from byol_tf.exporting.card_parts import front_matter, preparation


def card(converted: Converted, config: Config, source: str, digest: str, files: dict[str, str], out: Path) -> str:
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
    padding = {"same": "as TensorFlow pads (`same`)", "symmetric": "as PyTorch pads (`symmetric`)"}[converted.padding]
    left_out = f"Not converted: {', '.join(converted.left_out)}." if converted.left_out else "All of the file was converted."
    encoder, settings = shlex.quote(str(out / "encoder.keras")), shlex.quote(str(out / "config.json"))
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

encoder = tf.saved_model.load({str(out / "encoder" / "1")!r})
representations = encoder.serve(images)  # uint8 [N, H, W, 3]
```

```sh
python -m byol_tf.evaluate knn --encoder {encoder} --config {settings} --set data.root=photos --out judged
python -m byol_tf.train --config {settings} --set data.root=photos   # goes on learning from this encoder
```
"""
