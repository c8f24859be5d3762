"""PyTorch's ResNets, of torchvision and of others' methods: outputs, and what is refused."""

import argparse

import numpy as np
import pytest

from byol_tf.convert.pytorch import find_encoder, read_pytorch
from byol_tf.errors import ConversionError
from tests.helpers import torch_files, torch_resnet
from tests.helpers.conversion import SIZE, images, normalised, saved, without

pytestmark = pytest.mark.usefixtures("shallow")


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_torchvision_encoder_matches_numpy_reference(name, tmp_path):
    tensors = torch_resnet.state_dict(name)
    converted = read_pytorch(saved(tmp_path, tensors), SIZE)
    assert converted.architecture == (name, 1 / 16)
    x = normalised(images())
    expected = torch_resnet.representations(tensors, x)
    np.testing.assert_allclose(converted.encoder(x).numpy(), expected, atol=1e-4)
    assert expected.std(axis=0).mean() > 0.01
    counters = sum(name.endswith("num_batches_tracked") for name in tensors)
    assert converted.skipped == (
        "its last layer (`fc`)",
        f"{counters} counters (`num_batches_tracked`)",
    )


@pytest.mark.parametrize(
    ("prefix", "numbered", "others"),
    [
        ("backbone.", True, ["projection_head.layers.0.weight"]),  # lightly's examples
        ("backbone.", False, ["classifier.weight", "projector.0.weight"]),  # solo-learn
        ("module.encoder.", False, []),
    ],
)
def test_prefix_is_found_and_reported(prefix, numbered, others, tmp_path):
    tensors = torch_resnet.state_dict()
    del tensors["fc.weight"], tensors["fc.bias"]
    if numbered:
        indices = {
            "conv1": "0",
            "bn1": "1",
            "layer1": "4",
            "layer2": "5",
            "layer3": "6",
            "layer4": "7",
        }
        named = {
            ".".join([indices[name.split(".")[0]], *name.split(".")[1:]]): value
            for name, value in tensors.items()
        }
    else:
        named = tensors
    named = {f"{prefix}{name}": value for name, value in named.items()} | {
        name: np.ones(2, np.float32) for name in others
    }
    converted = read_pytorch(saved(tmp_path, named), SIZE)
    assert f"under the prefix `{prefix}`" in converted.origin
    assert ("numbered" in converted.origin) == numbered
    assert converted.skipped[0] == "14 counters (`num_batches_tracked`)"
    assert converted.skipped[1:] == tuple(f"`{name.split('.')[0]}`" for name in others)
    kernel = converted.encoder.get_layer("group2_block1_shortcut_conv").kernel.numpy()
    np.testing.assert_array_equal(
        kernel, tensors["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0)
    )


def test_names_of_tensors_are_no_markup_and_no_terminal_codes(tmp_path, capsys):
    tensors = torch_resnet.state_dict()
    hostile = "\x1b]0;title\x07\r`\n\n# Trusted\n\n<img src=x>`"
    others = {f"m.{name}": value for name, value in tensors.items()} | {
        hostile: np.zeros(1, np.float32)
    }
    path = saved(tmp_path, others)
    (description,) = read_pytorch(path, SIZE).skipped[2:]
    assert description.isprintable() and description.count("`") == 2
    assert description.startswith(r"`\x1b]0;title\x07\r'\n\n# Trusted")
    path = saved(tmp_path, tensors | {hostile: np.zeros(1, np.float32)})
    with pytest.raises(ConversionError) as error:
        read_pytorch(path, SIZE)
    assert all(line.isprintable() for line in str(error.value).split("\n"))


@pytest.mark.parametrize(
    ("usual", "other", "selects"),
    [
        ("backbone.", "momentum_backbone.", "momentum_backbone"),  # solo-learn
        ("state_dict.module.encoder_q.", "state_dict.module.encoder_k.", "encoder_k"),  # MoCo
        ("teacher.backbone.", "student.module.backbone.", "student"),  # DINO
        ("state_dict.", "state_dict_ema.", "state_dict_ema."),  # timm
        ("", "ema.", "ema"),
    ],
)
def test_usual_one_of_two_encoders_is_taken_and_prefix_selects(usual, other, selects, tmp_path):
    names = [f"{prefix}layer1.0.conv1.weight" for prefix in (other, usual)]
    assert find_encoder(tmp_path, names, None) == (usual, False, [other])
    assert find_encoder(tmp_path, names, selects) == (other, False, [usual])
    with pytest.raises(ConversionError, match="expected a ResNet under --prefix 'key'; found '"):
        find_encoder(tmp_path, names, "key")
    equal = [f"{side}.layer1.0.conv1.weight" for side in ("left", "right")]
    with pytest.raises(
        ConversionError, match=r"found 'left.' and 'right.'. Name one with --prefix"
    ):
        find_encoder(tmp_path, equal, None)


@pytest.mark.parametrize("legacy", [False, True])
def test_moco_checkpoint_of_torch_save_is_converted(legacy, tmp_path):
    tensors = torch_resnet.state_dict()
    weights = {
        f"module.{encoder}.{name}": value
        for encoder in ("encoder_q", "encoder_k")
        for name, value in tensors.items()
    }
    content = {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": torch_files.state_dict(weights | {"module.queue": np.ones((4, 6))}),
        "optimizer": {"state": {0: {"momentum_buffer": np.ones(3)}}},
    }
    path = torch_files.save(tmp_path / "moco.pth.tar", content, legacy)
    converted = read_pytorch(path, SIZE)
    assert converted.origin.endswith("; --prefix selects `state_dict.module.encoder_k.` instead")
    assert "in PyTorch's own format, under the prefix `state_dict.module.encoder_q.`" in (
        converted.origin
    )
    assert converted.skipped == (
        "its last layer (`fc`)",
        "14 counters (`num_batches_tracked`)",
        "`optimizer`",
        "`state_dict.module.encoder_k`",
        "`state_dict.module.queue`",
    )
    np.testing.assert_array_equal(
        converted.encoder.get_layer("stem_bn").gamma.numpy(), tensors["bn1.weight"]
    )


def test_pickled_module_is_named_in_the_error(tmp_path):
    path = torch_files.save(tmp_path / "model.pth", argparse.Namespace(module="all of it"))
    with pytest.raises(
        ConversionError,
        match=r"expected tensors in dicts, such as model.state_dict\(\); found none "
        r"\(skipped: argparse.Namespace\)",
    ):
        read_pytorch(path, SIZE)


@pytest.mark.usefixtures("built_once")
def test_width_is_checked_before_memory_is_taken(tmp_path):
    """Two tensors of a few numbers claim a network of terabytes."""
    tensors = torch_resnet.state_dict() | {
        "conv1.weight": np.ones((64000, 3, 7, 7), np.float16),
        "layer1.0.conv1.weight": np.ones((64000, 1, 1, 1), np.float16),
    }
    with pytest.raises(ConversionError, match=r"of another shape: bn1.weight \(expected \[64000\]"):
        read_pytorch(saved(tmp_path, tensors), SIZE)


def test_swav_heads_beside_the_encoder_are_set_aside(tmp_path):
    """Names as in the files that facebookresearch/swav publishes."""
    tensors = without(without(torch_resnet.state_dict(), "fc.weight"), "fc.bias")
    heads = {
        "projection_head.0.weight": np.ones((4, 8), np.float32),
        "projection_head.1.running_mean": np.ones(4, np.float32),
        "projection_head.1.num_batches_tracked": np.array(7, np.int64),
        "prototypes.weight": np.ones((6, 4), np.float32),
    }
    converted = read_pytorch(saved(tmp_path, tensors | heads, prefix="module."), SIZE)
    assert converted.skipped == (
        "15 counters (`num_batches_tracked`)",
        "`module.projection_head`",
        "`module.prototypes`",
    )
    np.testing.assert_array_equal(
        converted.encoder.get_layer("stem_bn").gamma.numpy(), tensors["bn1.weight"]
    )


@pytest.mark.usefixtures("built_once")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: without(t, "layer2.1.bn2.running_var"), "1 missing: layer2.1.bn2.running_var"),
        (
            lambda t: t | {"layer1.0.se.weight": np.ones(3, np.float32)},
            "1 unknown: layer1.0.se.weight",
        ),
        (
            lambda t: t | {"layer1.0.conv2.weight": np.ones((4, 4, 5, 5), np.float32)},
            r"1 of another shape: layer1.0.conv2.weight \(expected \[4, 4, 3, 3\]; received \[4, 4, 5, 5\]\)",
        ),
        (
            lambda t: t | {"bn1.bias": np.ones(4, np.int32)},
            r"1 of an unsupported dtype .*: bn1.bias \(I32\)",
        ),
        (
            lambda t: t | {"bn1.bias": np.full(4, np.nan, np.float32)},
            "1 with values that aren't finite: bn1.bias",
        ),
        (
            lambda t: t | {"bn1.bias": np.full(4, 1e300)},
            "1 with values that aren't finite: bn1.bias",
        ),
        (
            lambda t: t | {"conv1.weight": np.ones((4, 3, 3, 3), np.float32)},
            "expected a first convolution of 7 x 7 on 3 channels",
        ),
        (
            lambda t: t | {"layer1.2.conv1.weight": t["layer1.0.conv1.weight"]},
            "received groups of 3, 2, 1, 1 blocks of two convolutions",
        ),
        (
            lambda t: {"fc.weight": t["fc.weight"]},
            'expected torchvision\'s names of a ResNet, "layer1.0.conv1.weight"',
        ),
        (lambda t: {}, "found nothing"),
    ],
)
def test_wrong_torchvision_tensor_is_named_in_the_error(change, message, tmp_path):
    with pytest.raises(ConversionError, match=message):
        read_pytorch(saved(tmp_path, change(torch_resnet.state_dict())), SIZE)


@pytest.mark.usefixtures("built_once")
def test_all_mistakes_are_reported_together(tmp_path):
    tensors = without(torch_resnet.state_dict(), "bn1.weight") | {
        "extra.weight": np.ones(1, np.float32)
    }
    with pytest.raises(
        ConversionError, match=r"(?s)1 missing: bn1.weight.*1 unknown: extra.weight"
    ):
        read_pytorch(saved(tmp_path, tensors), SIZE)


def test_float16_and_float64_are_read(tmp_path):
    tensors = torch_resnet.state_dict()
    stored = tensors | {
        "bn1.weight": tensors["bn1.weight"].astype(np.float64),
        "bn1.bias": tensors["bn1.bias"].astype(np.float16),
    }
    layer = read_pytorch(saved(tmp_path, stored), SIZE).encoder.get_layer("stem_bn")
    np.testing.assert_array_equal(layer.gamma.numpy(), tensors["bn1.weight"])
    np.testing.assert_array_equal(layer.beta.numpy(), stored["bn1.bias"].astype(np.float32))
