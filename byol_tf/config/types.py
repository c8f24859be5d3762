"""Types of configuration values, and what messages call the values that they take."""

import os.path
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from byol_tf.constants import ENCODERS, PYTHON_MODEL


@dataclass(frozen=True)
class ExpectedText:
    """The values that a key takes, in words, where its type alone doesn't say it."""

    expected: str
    words: tuple[str, ...] = ()
    """Those of the values that are words of a fixed set."""


Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Minutes = Annotated[float, Field(ge=0.05, le=7 * 24 * 60)]
NotNegative = Annotated[float, Field(ge=0.0)]
Text = Annotated[str, Field(min_length=1)]
# Larger numbers overflow where elements are counted, or take all memory before a check is reached.
MAX_WIDTH, MAX_IMAGES = 10**6, 10**8
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
FilePath = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]


def _increasing(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError("low isn't below high")
    return value


# not strict, as JSON has lists and no tuples
ChannelMean = Annotated[
    tuple[float, ...],
    Field(strict=False),
    ExpectedText("a list of numbers, one for each channel"),
]
ChannelStd = Annotated[
    tuple[Positive, ...],
    Field(strict=False),
    ExpectedText("a list of numbers above 0, one for each channel"),
]
PixelRange = Annotated[
    tuple[float, float],
    Field(strict=False),
    AfterValidator(_increasing),
    ExpectedText("two numbers [low, high], low below high"),
]
EncoderName = Annotated[
    str,
    Field(
        pattern=f"^({'|'.join(ENCODERS)}|keras[.]applications/[A-Za-z0-9]+|keras_hub/[a-z0-9_.]+"
        f"|{re.escape(PYTHON_MODEL)}|[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*)$",
        examples=list(ENCODERS),
    ),
    ExpectedText(
        ", ".join(f'"{name}"' for name in ENCODERS)
        + ', "keras.applications/NAME", "keras_hub/PRESET" or "MODULE:FUNCTION"',
        ENCODERS,
    ),
]


class Section(BaseModel):
    """Base of all sections: strict types, immutable, no unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
