"""The convert command: outputs of the original network, errors, and runs that start from it."""

import argparse
import functools
import io
import json
import logging
import sys
from unittest import mock

import h5py
import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config
from byol_tf.constants import RESNETS
from byol_tf.convert import deepmind, pytorch
from byol_tf.convert.__main__ import main
from byol_tf.convert.deepmind import read_deepmind
from byol_tf.convert.pytorch import find_encoder, read_pytorch
from byol_tf.errors import ConfigError, ConversionError
from byol_tf.models.from_config import build_config_encoder, build_model
from byol_tf.models.networks import build_encoder
from byol_tf.runs.starting_weights import start_from, starting_weights
from tests.helpers import haiku_byol, torch_files, torch_resnet
from tests.reliability.hostile_files import keras_members, write_zip

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIZE = 64
SHALLOW = 1, 2, 1, 1
"""Blocks in each group: enough for each type of block and each stride."""


@pytest.fixture(scope="module", autouse=True)
def shallow():
    """Gives the networks of this file few blocks, so that its tests take seconds.

    test_photos.py has the published sizes.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("resnet18", "resnet50", "wide_resnet50_2"):
            patch.setitem(RESNETS, name, SHALLOW)
        yield


@pytest.fixture
def built_once(monkeypatch):
    """Builds each network once, for tests in which no weight is assigned."""
    for module in (deepmind, pytorch):
        monkeypatch.setattr(module, "build_encoder", _built)


_built = functools.cache(build_encoder)


def images(count=3, size=SIZE, seed=2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def normalised(pixels: np.ndarray) -> np.ndarray:
    return ((pixels / 255.0 - MEAN) / STD).astype(np.float32)


def saved(folder, tensors, prefix=""):
    path = folder / "resnet.safetensors"
    safetensors.numpy.save_file(
        {f"{prefix}{name}": np.ascontiguousarray(value) for name, value in tensors.items()}, path
    )
    return path


# torchvision


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
    tensors = _without(_without(torch_resnet.state_dict(), "fc.weight"), "fc.bias")
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


def _without(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


@pytest.mark.usefixtures("built_once")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: _without(t, "layer2.1.bn2.running_var"), "1 missing: layer2.1.bn2.running_var"),
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
    tensors = _without(torch_resnet.state_dict(), "bn1.weight") | {
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


# deepmind


@pytest.fixture(scope="module")
def small_checkpoint():
    """Returns a small Haiku network, and the parameters and state of its online and target one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(haiku_byol.BLOCKS, "ResNet50", SHALLOW)
        network = haiku_byol.HaikuByol(width=1 / 16, namesake=True)
    return network, network.random_weights(0), network.random_weights(1)


def test_deepmind_networks_match_haikus_outputs(small_checkpoint, tmp_path):
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


def test_checkpoint_without_heads_and_target_is_converted(small_checkpoint, tmp_path):
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
    which, module, change, message, small_checkpoint, tmp_path
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
def test_pickle_of_something_else_is_refused(tree, message, tmp_path):
    with pytest.raises(ConversionError, match=message):
        read_deepmind(haiku_byol.save(tmp_path / "c.pkl", tree), SIZE)


# the folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Returns the folder that the command wrote, and the tensors that it is from."""
    folder = tmp_path_factory.mktemp("converted")
    tensors = torch_resnet.state_dict()
    assert main(["pytorch", str(saved(folder, tensors)), "--out", str(folder / "out")]) == 0
    return folder / "out", tensors


def test_exports_match_the_original_on_uint8_images(converted):
    folder, tensors = converted
    pixels = images(2, 224)
    expected = torch_resnet.representations(tensors, normalised(pixels))
    of_keras = keras.models.load_model(folder / "encoder.keras")(pixels).numpy()
    np.testing.assert_allclose(of_keras, expected, atol=1e-4)
    saved = tf.saved_model.load(str(folder / "encoder" / "1"))
    np.testing.assert_allclose(saved.serve(pixels).numpy(), of_keras, atol=1e-5)
    assert expected.shape == (2, 32)


def test_folder_has_card_and_config_and_no_temporary_files(converted):
    folder, _ = converted
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "USAGE.md",
        "config.json",
        "encoder",
        "encoder.keras",
    ]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["out", "resnet.safetensors"]
    card = (folder / "README.md").read_text()
    for words in (
        "From `resnet.safetensors`",
        "SHA-256 `",
        "224 px",
        "(0.485, 0.456, 0.406)",
        "its last layer (`fc`)",
        "`symmetric`",
        "* Assumed: torchvision's strides",
        "no dilation",
    ):
        assert words in card
    config = load_config(folder / "config.json")
    assert (config.encoder.name, config.encoder.width, config.encoder.padding) == (
        "resnet18",
        1 / 16,
        "symmetric",
    )
    assert config.encoder.weights == str(folder / "encoder.keras")


def test_error_has_a_message_and_leaves_no_folder(converted, tmp_path, capsys, monkeypatch):
    folder, tensors = converted
    path = saved(tmp_path, _without(tensors, "bn1.weight"))
    assert main(["pytorch", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "1 missing: bn1.weight" in capsys.readouterr().err
    assert main(["pytorch", str(folder / ".." / "resnet.safetensors"), "--out", str(folder)]) == 2
    assert (
        f"--out {folder}: expected a new or empty folder; it isn't empty" in capsys.readouterr().err
    )
    assert main(["deepmind", str(tmp_path / "none.pkl"), "--out", str(tmp_path / "out")]) == 2
    assert "expected a file; there is nothing there" in capsys.readouterr().err
    assert main(["pytorch", str(folder / "config.json"), "--out", str(tmp_path / "out")]) == 2
    assert "expected a file of torch.save or a safetensors file" in capsys.readouterr().err
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "safetensors", None)
        assert main(["pytorch", str(path), "--out", str(tmp_path / "out")]) == 2
    assert (
        capsys.readouterr().err
        == "safetensors isn't installed, which reads such a file: pip install safetensors\n"
    )

    line = [
        "pytorch",
        str(folder.parent / "resnet.safetensors"),
        "--out",
        str(tmp_path / "out"),
    ]
    for error in (
        OSError(28, "No space left on device"),
        tf.errors.ResourceExhaustedError(None, None, "No space left on device\nmore"),
    ):
        full = mock.Mock(side_effect=error)
        monkeypatch.setattr("byol_tf.convert.writing.export_encoder", full)
        assert main(line) == 2
        message = f"--out {tmp_path / 'out'}: can't be written: No space left on device\n"
        assert capsys.readouterr().err == message
    assert [entry.name for entry in tmp_path.iterdir()] == ["resnet.safetensors"]


# a run from it


def config_from(folder, **encoder) -> Config:
    """Returns the config of a small run that starts from the folder."""
    tree = json.loads((folder / "config.json").read_text())
    tree["data"] = {"source": "digits", "pretrain_images": 32}
    tree["views"] = {"size": 32}
    tree["encoder"] |= encoder
    tree["projector"] = tree["predictor"] = {"hidden_size": 16}
    tree["training"] = {"epochs": 2, "batch_size": 16}
    return Config.model_validate(tree)


@pytest.mark.long
def test_run_starts_from_the_converted_encoder(converted, tmp_path, caplog):
    from byol_tf.train.experiment import Experiment
    from byol_tf.train.start import initialize_or_resume

    folder, tensors = converted
    experiment = Experiment(config_from(folder), tmp_path / "run")
    experiment.prepare()
    assert not (tmp_path / "run").exists()
    with caplog.at_level(logging.INFO):
        initialize_or_resume(
            experiment.config,
            experiment.folder,
            experiment.model,
            experiment.source,
            experiment.schedule,
            None,
            ["test"],
        )
    pixels = images(2, 32)
    expected = torch_resnet.representations(tensors, normalised(pixels))
    np.testing.assert_allclose(experiment.inference(pixels).numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(
        experiment.model.target_encoder(normalised(pixels)).numpy(), expected, atol=1e-4
    )
    assert f"the encoder starts from {folder / 'encoder.keras'}" in caplog.messages


@pytest.fixture
def loaded(converted, monkeypatch):
    """Returns the folder, and has its `encoder.keras` read once for all tests."""
    folder, _ = converted
    if not _LOADED:
        _LOADED.append(keras.models.load_model(folder / "encoder.keras"))
    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: _LOADED[0])
    return folder


_LOADED = []


def test_online_and_target_start_from_the_converted_encoder(loaded, converted):
    config = config_from(loaded)
    model = build_model(config)
    start_from(model, starting_weights(config.encoder.weights, model.encoder, config))
    x = normalised(images(2, 32))
    expected = torch_resnet.representations(converted[1], x)
    np.testing.assert_allclose(model.encoder(x).numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(model.target_encoder(x).numpy(), expected, atol=1e-4)


def test_weights_of_a_folder_fit_another_image_size(loaded):
    config = config_from(loaded)
    encoder = build_config_encoder(config)
    weights = starting_weights(str(loaded), encoder, config)
    assert weights.keys() == {layer.name for layer in encoder.layers if layer.weights}
    loaded_encoder = _LOADED[0].get_layer("resnet18")
    assert loaded_encoder.input_shape != encoder.input_shape
    for name, arrays in weights.items():
        for ours, theirs in zip(arrays, loaded_encoder.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            {"padding": "same"},
            r"it has besides 5 layers: group2_block1_conv1_pad, .* and 2 more \(encoder.name, stem, .* or padding differs",
        ),
        ({"name": "resnet50"}, r"it lacks 2\d layers: group1_block1_bn3"),
        (
            {"width": 0.125},
            r"\d+ layers have other shapes, as stem_conv with \[\(7, 7, 3, 4\)\] for \[\(7, 7, 3, 8\)\]",
        ),
        ({"stem": "3x3+pool"}, "it has besides 1 layers: stem_conv_pad"),
        ({"normalization": "layer"}, "it lacks"),
        (
            {"weights": "nowhere"},
            r'expected an encoder.keras, or a folder that holds one, .*"imagenet"; received "nowhere"',
        ),
    ],
)
def test_weights_of_another_encoder_are_an_error(loaded, encoder, message):
    config = config_from(loaded, **encoder)
    with pytest.raises(ConfigError, match=f"encoder.weights: .*{message}"):
        starting_weights(config.encoder.weights, build_config_encoder(config), config)


def test_weights_for_another_mean_are_an_error(loaded):
    config = config_from(loaded)
    views = config.views.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    with pytest.raises(
        ConfigError,
        match=r"normalised with mean \[0.485, 0.456, 0.406\], and views.mean is \[0.5, 0.5, 0.5\]",
    ):
        starting_weights(
            config.encoder.weights,
            build_config_encoder(config),
            config.model_copy(update={"views": views}),
        )


def test_file_without_an_exported_encoder_is_an_error(converted, tmp_path):
    config = config_from(converted[0])
    encoder = build_config_encoder(config)
    (tmp_path / "x.keras").write_bytes(b"no archive")
    encoder.save(tmp_path / "bare.keras")
    for name in ("x.keras", "bare.keras"):
        with pytest.raises(
            ConfigError, match=r"expected the encoder.keras of a run or a conversion"
        ):
            starting_weights(str(tmp_path / name), encoder, config)


def test_weights_that_are_not_finite_are_an_error(converted, tmp_path):
    """Keras' safe mode loads them."""
    config = config_from(converted[0])
    members = keras_members(converted[0] / "encoder.keras")
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        file.visititems(
            lambda _, item: (
                item.write_direct(np.full(item.shape, np.nan, item.dtype))
                if item_holds_numbers(item)
                else None
            )
        )
    write_zip(tmp_path / "encoder.keras", members | {"model.weights.h5": weights.getvalue()})
    with pytest.raises(
        ConfigError,
        match=r"encoder.weights: .*encoder.keras: expected .*; weights of it are not finite numbers",
    ):
        starting_weights(str(tmp_path), build_config_encoder(config), config)


def item_holds_numbers(item: h5py.Group | h5py.Dataset) -> bool:
    return isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and item.size > 0


def test_weights_and_padding_exclude_other_keys(converted):
    for encoder, message in (
        (
            {"normalization": "group", "width": 0.25},
            "encoder.weights: expected null, as an exported encoder has other layers in place of",
        ),
        (
            {"name": "convnet", "width": 1.0},
            'encoder.padding: expected "same", its default, as encoder.name "convnet"',
        ),
    ):
        with pytest.raises(ValueError, match=message):
            config_from(converted[0], **encoder)
