"""DeepMind's checkpoints: outputs of the original network, and what is refused."""

import numpy as np
import pytest

from byol_tf.convert.deepmind import read_deepmind
from byol_tf.errors import ConversionError
from tests.helpers.conversion import SHALLOW, SIZE, images, normalised

pytestmark = pytest.mark.usefixtures("shallow")


@pytest.fixture(scope="module")
def small_checkpoint(haiku_byol):
    """Returns a small Haiku network, and the parameters and state of its online and target one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(haiku_byol.BLOCKS, "ResNet50", SHALLOW)
        network = haiku_byol.HaikuByol(width=1 / 16, namesake=True)
    return network, network.random_weights(0), network.random_weights(1)


def test_deepmind_networks_match_haikus_outputs(haiku_byol, small_checkpoint, tmp_path):
    network, online, target = small_checkpoint
    converted = read_deepmind(
        haiku_byol.save(tmp_path / "c.pkl", haiku_byol.checkpoint(online, target)), SIZE
    )
    assert converted.architecture == ("resnet50", 1 / 16)
    assert "saved at step 312,500" in converted.origin
    pixels = images()
    x = normalised(pixels)
    representation, projection, prediction = network.outputs(
        *online, (pixels / 255.0).astype(np.float32)
    )
    ours = converted.encoder(x)
    np.testing.assert_allclose(ours.numpy(), representation, atol=1e-4)
    ours = converted.heads["projector"](ours)
    np.testing.assert_allclose(ours.numpy(), projection, atol=1e-4)
    np.testing.assert_allclose(converted.heads["predictor"](ours).numpy(), prediction, atol=1e-4)
    assert representation.std(axis=0).mean() > 0.01 and prediction.std(axis=0).mean() > 0.01
    representation, projection, _ = network.outputs(*target, (pixels / 255.0).astype(np.float32))
    ours = converted.target_encoder(x)
    np.testing.assert_allclose(ours.numpy(), representation, atol=1e-4)
    np.testing.assert_allclose(
        converted.target_heads["projector"](ours).numpy(), projection, atol=1e-4
    )
    assert set(converted.target_heads) == {"projector"}


def test_checkpoint_without_heads_and_target_is_converted(haiku_byol, small_checkpoint, tmp_path):
    _, (parameters, state), target = small_checkpoint
    encoder_only = tuple(
        {name: value for name, value in tree.items() if name.startswith("res_net")}
        for tree in (parameters, state)
    )
    tree = haiku_byol.checkpoint(encoder_only, target)
    tree["experiment_state"] = tree["experiment_state"]._replace(
        target_params=None, target_state=None
    )
    converted = read_deepmind(haiku_byol.save(tmp_path / "c.pkl", tree), SIZE)
    assert converted.heads == {} and converted.target_encoder is None
    assert converted.skipped == (
        "the classifier that was trained on the representations",
        "the optimizer's state",
    )


def _edited(trees, which, module, change):
    """Returns (parameters, state) with a module's dict changed in one; None removes the module."""
    edited = [dict(tree) for tree in trees]
    value = change(dict(edited[which].get(module, {})))
    edited[which].pop(module, None)
    if value is not None:
        edited[which][module] = value
    return tuple(edited)


BLOCK = "res_net/~/block_group_1/~/block_1/~/"


@pytest.mark.usefixtures("built_once")
@pytest.mark.parametrize(
    ("which", "module", "change", "message"),
    [
        (
            0,
            f"{BLOCK}conv_1",
            lambda m: None,
            "online_params: .*\n  1 missing: res_net/block_group_1/block_1/conv_1/w",
        ),
        (
            1,
            f"{BLOCK}batchnorm_0/~/var_ema",
            lambda m: None,
            "1 missing: res_net/block_group_1/block_1/batchnorm_0/var_ema/average",
        ),
        (
            0,
            f"{BLOCK}conv_1",
            lambda m: m | {"b": np.ones(2, np.float32)},
            "1 unknown: res_net/block_group_1/block_1/conv_1/b",
        ),
        (0, "extra", lambda m: {"w": np.ones(2, np.float32)}, "1 unknown tensors: extra/w"),
        (
            0,
            f"{BLOCK}conv_1",
            lambda m: {"w": m["w"][:1]},
            r"\(expected \[3, 3, 8, 8\]; received \[1, 3, 8, 8\]\)",
        ),
        (
            0,
            f"{BLOCK}conv_1",
            lambda m: {"w": m["w"].transpose(0, 1, 3, 2)[..., :4]},
            "1 of another shape",
        ),
        (
            0,
            "projector/linear",
            lambda m: m | {"w": m["w"][1:]},
            r"1 of another shape: projector/linear/w \(expected \[128, 24\]",
        ),
        (0, "projector/linear", lambda m: None, "expected projector/linear/w"),
        (
            0,
            "projector/linear_2",
            lambda m: {"w": np.ones((2, 2), np.float32)},
            "1 unknown: projector/linear_2/w",
        ),
        (
            0,
            "res_net/~/initial_conv_1",
            lambda m: None,
            'expected one ResNet, with a first convolution "<name>/initial_conv/w"; received none',
        ),
        (
            0,
            "other/~/initial_conv",
            lambda m: {"w": np.ones((7, 7, 3, 4), np.float32)},
            "received res_net/initial_conv_1/w, other/initial_conv/w",
        ),
        (0, f"{BLOCK}conv_1", lambda m: {"w": m["w"] * np.nan}, "1 with values that aren't finite"),
        (
            0,
            f"{BLOCK}conv_1",
            lambda m: {"w": m["w"].astype(np.int32)},
            "1 of an unsupported dtype",
        ),
        (
            0,
            f"{BLOCK}conv_1",
            lambda m: {"w": [1.0]},
            "expected an array as res_net/block_group_1/block_1/conv_1/w; received list",
        ),
    ],
)
def test_wrong_haiku_parameter_is_named_in_the_error(
    which, module, change, message, haiku_byol, small_checkpoint, tmp_path
):
    _, online, target = small_checkpoint
    tree = haiku_byol.checkpoint(_edited(online, which, module, change), target)
    with pytest.raises(ConversionError, match=message):
        read_deepmind(haiku_byol.save(tmp_path / "c.pkl", tree), SIZE)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1, 2], 'expected a BYOL checkpoint, with a mapping "experiment_state"; received list'),
        ({"weights": {}}, 'with a mapping "experiment_state"; received weights'),
        (
            {"experiment_state": {"backbone_params": {}}},
            'with a mapping "online_params"; received backbone_params',
        ),
        (
            {"experiment_state": {"online_params": {}, "online_state": {}}},
            "received none among no tensors",
        ),
        (
            {"experiment_state": {"online_params": {"a": 1}, "online_state": {}}},
            "expected modules with mappings of arrays; received 'a'",
        ),
    ],
)
def test_pickle_of_something_else_is_refused(tree, message, haiku_byol, tmp_path):
    with pytest.raises(ConversionError, match=message):
        read_deepmind(haiku_byol.save(tmp_path / "c.pkl", tree), SIZE)
