"""View policies: probabilities and strengths of augmentations, and each paper's preset.

A policy is data. The engines that apply it (`views/fused.py`, `views/host.py`) read nothing
else, so they can be compared number by number. Every number has the meaning that it has in the
papers; engines translate it to their library's conventions.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


@dataclass(frozen=True)
class IncreasingRange:
    """Validator of a range: lowest < low <= high <= highest.

    Attributes:
        lowest: exclusive lower bound.
        highest: inclusive upper bound.
    """

    lowest: float
    highest: float

    @property
    def expected(self) -> str:
        """Description of a valid range, for messages."""
        return f"two numbers [low, high] with {self.lowest:g} < low <= high <= {self.highest:g}"

    def __call__(self, value: tuple[float, float]) -> tuple[float, float]:
        """Returns the range. Raises ValueError for an invalid one."""
        low, high = value
        if not self.lowest < low <= high <= self.highest:
            raise ValueError(f"expected {self.expected}; received [{low:g}, {high:g}]")
        return value


@dataclass(frozen=True)
class OddNumber:
    """Validator of a kernel's width: odd, so that the kernel has a centre."""

    expected: str = "an odd whole number of 1 or more"

    def __call__(self, value: int) -> int:
        """Returns the number. Raises ValueError for an even one or one below 1."""
        if value < 1 or value % 2 == 0:
            raise ValueError(f"expected {self.expected}; received {value}")
        return value


Range = Annotated[tuple[float, float], Field(strict=False)]  # strict would reject JSON's lists
AreaRange = Annotated[Range, AfterValidator(IncreasingRange(0.0, 1.0))]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Strength = Annotated[float, Field(ge=0.0, le=1.0)]


RGB_OPERATIONS = ("saturation", "hue", "grayscale_probability")
"""Fields of a policy that are for images of three channels; for others engines skip them."""

_DISTORTIONS = (
    "blur_probability",
    "solarize_probability",
    "patch_drop_probability",
    "channel_drop_probability",
    "perspective_probability",
)


class ViewPolicy(BaseModel):
    """Augmentations of one view: their probabilities and strengths.

    They are those of the BYOL paper, appendix B, and deepmind-research
    `byol/utils/augmentations.py`. Their order is crop, flip, perspective, jitter, grayscale, blur,
    solarize, patch drop, channel drop. Pixel values lie in [0, 1] and are clipped after each
    operation.

    Example:
        ```python
        first, second = preset("byol")
        mild = first.model_copy(update={"crop_area": (0.4, 1.0), "hue": 0.0})
        ```
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    crop_area: AreaRange = (0.08, 1.0)
    """Range of the crop's area as a fraction of the image's, uniform."""
    crop_aspect: Annotated[Range, AfterValidator(IncreasingRange(0.0, 10.0))] = (3 / 4, 4 / 3)
    """Range of the crop's width / height, log-uniform."""
    flip_probability: Probability = 0.5
    """Probability of a left-right flip."""
    jitter_probability: Probability = 0.8
    """Probability that the four colour operations below are applied, in an order drawn for each
    image."""
    brightness: Strength = 0.4
    """An offset drawn from [-b, b] is added to every pixel."""
    contrast: Strength = 0.4
    """Distance to `contrast_center` is scaled by a factor from [1 - c, 1 + c]."""
    contrast_center: Literal["mean", "zero"] = "mean"
    """The value that contrast leaves as it is: `mean`, of each channel, as the BYOL paper's code;
    `zero`, so that pixels are multiplied by the factor, as in Kornia."""
    saturation: Strength = 0.2
    """HSV saturation is scaled by a factor from [1 - s, 1 + s]."""
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    """Hue is turned by [-h, h] of the full circle."""
    grayscale_probability: Probability = 0.2
    """Probability that colour is removed (weights .2989, .587, .114)."""
    blur_probability: Probability = 1.0
    """Probability of a Gaussian blur."""
    blur_kernel_size: Annotated[int, AfterValidator(OddNumber())] | None = None
    """Width of the blur's kernel in pixels. Default: a tenth of the view, made odd (23 at 224 px, 9
    at 96 px)."""
    blur_sigma: Annotated[Range, AfterValidator(IncreasingRange(0.0, 100.0))] = (0.1, 2.0)
    """Range of the blur's standard deviation in pixels, uniform."""
    solarize_probability: Probability = 0.0
    """Probability that pixels at or above the threshold are inverted."""
    solarize_threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Where solarization begins, on the scale of [0, 1]."""
    patch_drop_probability: Probability = 0.0
    """Probability that three random rectangles, which may overlap, turn black (STL-10 paper,
    section 3.4, and its authors' code)."""
    patch_drop_side: AreaRange = (0.1, 0.3)
    """Range of height and width of a dropped rectangle, each uniform, as fractions of the view's
    side."""
    channel_drop_probability: Probability = 0.0
    """Probability of each channel that it turns black. For images of many channels, so that none is
    relied on."""
    perspective_probability: Probability = 0.0
    """Probability of a random perspective (STL-10 paper, section 3.4)."""
    perspective_distortion: Strength = 0.5
    """How far each corner moves inwards at most, as a fraction of half the side (0.5 is Kornia's
    default; the paper used Kornia and names no value)."""

    def without_crop(self) -> Self:
        """Returns the policy for images that are cropped and resized already.

        Its crop leaves a square unchanged; all other operations and their parameters are the same.
        """
        return self.model_copy(update={"crop_area": (1.0, 1.0), "crop_aspect": (1.0, 1.0)})

    def sharp(self) -> Self:
        """Returns crop, flip and colours of the policy alone, to train a classifier with.

        Blur, solarisation, dropped patches and channels, and perspective make views that no photo
        looks like.
        """
        return self.model_copy(update=dict.fromkeys(_DISTORTIONS, 0.0))

    def for_channels(self, channels: int) -> Self:
        """Returns the policy without `RGB_OPERATIONS`, unless images have three channels."""
        if channels == 3:
            return self
        return self.model_copy(update=dict.fromkeys(RGB_OPERATIONS, 0.0))

    def kernel_size(self, view_size: int) -> int:
        """Returns the width of the blur's kernel in pixels, for views of this side."""
        return self.blur_kernel_size or kernel_size(view_size)


_BYOL_FIRST: dict[str, Any] = {}
_BYOL_SECOND = {"blur_probability": 0.1, "solarize_probability": 0.2}
# The STL-10 paper lists crop, flip, jitter, grayscale and blur, the same for both views; the
# numbers are those of its authors' code, zhihua-zhang/BYOL `utils.py`.
_STL10 = {
    "brightness": 0.8,
    "contrast": 0.8,
    "contrast_center": "zero",
    "saturation": 0.8,
    "hue": 0.2,
    "blur_probability": 0.1,
    "blur_kernel_size": 3,
    "blur_sigma": (1.5, 1.5),
}
# SimCLR's strengths (twice BYOL's, saturation four times) and those of MoCo v2, which SimSiam took
# over; both with SimCLR's blur probability.
_SIMCLR = {
    "brightness": 0.8,
    "contrast": 0.8,
    "saturation": 0.8,
    "hue": 0.2,
    "blur_probability": 0.5,
}
_SIMSIAM = {"crop_area": (0.2, 1.0), "saturation": 0.4, "blur_probability": 0.5}
_NONE = {
    "crop_area": (1.0, 1.0),
    "crop_aspect": (1.0, 1.0),
    "flip_probability": 0.0,
    "jitter_probability": 0.0,
    "grayscale_probability": 0.0,
    "blur_probability": 0.0,
    "solarize_probability": 0.0,
}

PRESETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "byol": (_BYOL_FIRST, _BYOL_SECOND),
    "stl10": (_STL10, _STL10),
    "simclr": (_SIMCLR, _SIMCLR),
    "simsiam": (_SIMSIAM, _SIMSIAM),
    "none": (_NONE, _NONE),
}
"""Name -> changes of `ViewPolicy`'s defaults for (first view, second view). `none` is the largest
centred square, resized: no augmentation."""


def preset(name: str) -> tuple[ViewPolicy, ViewPolicy]:
    """Returns the two view policies of a preset. Raises KeyError for an unknown name."""
    first, second = PRESETS[name]
    return ViewPolicy(**first), ViewPolicy(**second)


def kernel_size(view_size: int) -> int:
    """Returns the width of the blur's kernel in pixels: a tenth of the view's side, made odd.

    It is 23 at 224 px, 9 at 96 and 3 at 32, as in deepmind-research's `augmentations.py`.
    """
    return 2 * (view_size // 10 // 2) + 1
