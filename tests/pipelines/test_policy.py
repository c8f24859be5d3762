"""View policies: the numbers of each preset, copied by hand from the papers."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from pipelines.policy import PRESETS, ViewPolicy, kernel_size, preset

# BYOL paper, table 6 (both columns) and appendix B; the last five are off there.
BYOL_BOTH = {
    "crop_area": (0.08, 1.0),
    "crop_aspect": (3 / 4, 4 / 3),
    "flip_probability": 0.5,
    "jitter_probability": 0.8,
    "brightness": 0.4,
    "contrast": 0.4,
    "contrast_center": "mean",
    "saturation": 0.2,
    "hue": 0.1,
    "grayscale_probability": 0.2,
    "blur_kernel_size": None,
    "blur_sigma": (0.1, 2.0),
    "solarize_threshold": 0.5,
    "patch_drop_probability": 0.0,
    "channel_drop_probability": 0.0,
    "patch_drop_side": (0.1, 0.3),
    "perspective_probability": 0.0,
    "perspective_distortion": 0.5,
}
EXPECTED = {
    "byol": (
        BYOL_BOTH | {"blur_probability": 1.0, "solarize_probability": 0.0},
        BYOL_BOTH | {"blur_probability": 0.1, "solarize_probability": 0.2},
    ),
    # zhihua-zhang/BYOL utils.py, `default_augmentation` and `RandomPatchDrop`
    "stl10": (
        BYOL_BOTH
        | {
            "brightness": 0.8,
            "contrast": 0.8,
            "contrast_center": "zero",
            "saturation": 0.8,
            "hue": 0.2,
            "blur_probability": 0.1,
            "blur_kernel_size": 3,
            "blur_sigma": (1.5, 1.5),
            "solarize_probability": 0.0,
        },
    )
    * 2,
    "simclr": (
        BYOL_BOTH
        | {
            "brightness": 0.8,
            "contrast": 0.8,
            "saturation": 0.8,
            "hue": 0.2,
            "blur_probability": 0.5,
            "solarize_probability": 0.0,
        },
    )
    * 2,
    "simsiam": (
        BYOL_BOTH
        | {
            "crop_area": (0.2, 1.0),
            "saturation": 0.4,
            "blur_probability": 0.5,
            "solarize_probability": 0.0,
        },
    )
    * 2,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_presets_have_the_numbers_of_the_papers(name):
    for policy, expected in zip(preset(name), EXPECTED[name], strict=True):
        assert policy.model_dump() == expected


def test_preset_none_changes_nothing():
    first, second = preset("none")
    assert first == second
    changes = {
        key: value for key, value in first.model_dump().items() if key.endswith("_probability")
    }
    assert len(changes) == 8
    assert set(changes.values()) == {0.0}
    assert first.crop_area == first.crop_aspect == (1.0, 1.0)


def test_unknown_preset_is_a_key_error():
    assert set(PRESETS) == {"byol", "stl10", "simclr", "simsiam", "none"}
    with pytest.raises(KeyError):
        preset("moco")


@pytest.mark.parametrize(
    ("size", "width"), [(224, 23), (128, 13), (96, 9), (64, 7), (32, 3), (28, 3), (8, 1)]
)
def test_blur_kernel_spans_a_tenth_of_the_view(size, width):
    assert kernel_size(size) == ViewPolicy().kernel_size(size) == width
    assert ViewPolicy(blur_kernel_size=3).kernel_size(size) == 3


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("crop_area", (0.5, 0.2), "0 < low <= high <= 1; received [0.5, 0.2]"),
        ("crop_area", (0.0, 0.2), "0 < low <= high <= 1; received [0, 0.2]"),
        ("crop_area", (0.2, 1.5), "received [0.2, 1.5]"),
        ("crop_aspect", (2.0, 0.5), "received [2, 0.5]"),
        ("blur_sigma", (0.0, 2.0), "received [0, 2]"),
        ("blur_kernel_size", 4, "an odd whole number of 1 or more; received 4"),
        ("contrast_center", "black", "'mean' or 'zero'"),
        ("flip_probability", 1.5, "less than or equal to 1"),
        ("hue", 0.6, "less than or equal to 0.5"),
        ("brightness", -0.1, "greater than or equal to 0"),
        ("contrast", float("nan"), "finite number"),
        ("flip_probability", "0.5", "valid number"),
        ("solarise_probability", 0.5, "not permitted"),
    ],
)
def test_invalid_fields_are_rejected(field, value, expected):
    with pytest.raises(ValidationError) as raised:
        ViewPolicy(**{field: value})
    assert field in str(raised.value)
    assert expected in str(raised.value)


def test_range_may_be_a_list_and_policy_is_frozen():
    policy = ViewPolicy(crop_area=[0.2, 0.2])
    assert policy.crop_area == (0.2, 0.2)
    with pytest.raises(ValidationError, match="frozen"):
        policy.hue = 0.2


def test_every_field_has_a_description():
    assert all(field.description for field in ViewPolicy.model_fields.values())


def test_importing_policy_loads_no_tensorflow():
    code = "import sys, pipelines.policy; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sharp_policy_is_crop_flip_and_colors():
    """Of the STL-10 paper's, whose own blur and the operations added here go."""
    policy = preset("stl10")[0].model_copy(
        update={
            "solarize_probability": 0.2,
            "patch_drop_probability": 0.3,
            "channel_drop_probability": 0.4,
            "perspective_probability": 0.5,
        }
    )
    kept = ("jitter_probability", "grayscale_probability", "flip_probability")
    for name, value in policy.sharp():
        gone = name.endswith("_probability") and name not in kept
        assert value == (0.0 if gone else getattr(policy, name)), name
