"""What a conversion gives: networks, and what is to be said of them."""

from dataclasses import dataclass, field

import keras

from byol_tf.conversion.architecture import Architecture


@dataclass(frozen=True)
class Converted:
    """Networks from a file, with all their weights set.

    Attributes:
        architecture: of the encoder.
        padding: a word of `parts.PADDINGS`.
        encoder: from normalised images `[N, size, size, 3]` to representations `[N, d]`.
        origin: what the file was.
        heads: `projector` `[N, d]` to `[N, p]` and `predictor` `[N, p]` to `[N, p]`, where the file has them.
        target_encoder, target_heads: the target network's, where the file has one.
        left_out: what the file has besides.
    """

    architecture: Architecture
    padding: str
    encoder: keras.Model
    origin: str
    heads: dict[str, keras.Model] = field(default_factory=dict)
    target_encoder: keras.Model | None = None
    target_heads: dict[str, keras.Model] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
