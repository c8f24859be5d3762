"""Tests of loading configs: values, overrides, and the exact message of every mistake."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from byol_tf.config.fields import RENAMED, SECTIONS, split_key
from byol_tf.config.loading import load_config, recipes, resolved_json
from byol_tf.config.messages import describe_expected
from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
BASE = {
    "name": "mine",
    "data": {"source": "stl10"},
    "views": {"size": 96},
    "optimizer": {"base_learning_rate": 0.001},
    "training": {"epochs": 100, "batch_size": 64},
}
GONE = object()


def edited(**changes):
    """Returns BASE with values set at dotted keys (`__` for the dot); GONE removes a key."""
    tree = json.loads(json.dumps(BASE))
    for name, value in changes.items():
        *path, last = name.split("__")
        section = tree
        for part in path:
            section = section.setdefault(part, {})
        if value is GONE:
            del section[last]
        else:
            section[last] = value
    return tree


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def message(content, overrides=(), path="c.json"):
    """Returns the message of `load_config` for a file with this text, bytes or tree."""
    if isinstance(content, bytes):
        Path(path).write_bytes(content)
    else:
        Path(path).write_text(
            content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
        )
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


SOURCES = '"textures", "digits", "folder", "shards", "huggingface", "stl10", "cifar10", "imagenet" or "arrays"'

ENCODERS = (
    '"convnet", "resnet8", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", '
    '"resnet200", '
    '"wide_resnet50_2", "keras.applications/NAME", "keras_hub/PRESET" or "MODULE:FUNCTION"'
)

# Changes to BASE -> the complete message.
WRONG_KEYS = [
    ({"training__epohcs": 5}, 'training.epohcs: unknown key; did you mean "epochs" (now 100)?'),
    ({"training__Epochs": 5}, 'training.Epochs: unknown key; did you mean "epochs" (now 100)?'),
    (
        {"training__batch-size": 5},
        'training.batch-size: unknown key; did you mean "batch_size" (now 64)?',
    ),
    (
        {"training__epochs": GONE, "training__epohcs": 5},
        'training.epohcs: unknown key; did you mean "epochs"?',
    ),
    ({"trainnig": {"epochs": 5}}, 'trainnig: unknown key; did you mean "training"?'),
    ({"optimizer__epochs": 5}, 'optimizer.epochs: unknown key; it belongs to "training"'),
    ({"epochs": 5}, 'epochs: unknown key; it belongs to "training"'),
    (
        {"data__name": "x"},
        'data.name: unknown key; it belongs to the top level, "encoder" or "optimizer"',
    ),
    (
        {"views__crop_area": [0.2, 1]},
        'views.crop_area: unknown key; it belongs to "views.first" or "views.second"',
    ),
    (
        {"learning_rate": 1},
        'learning_rate: unknown key; did you mean "optimizer.base_learning_rate" (now 0.001)?',
    ),
    ({"training.epochs": 5}, '"training.epochs": unknown key; write "epochs" inside "training"'),
    (
        {"training__accumulation": 2},
        'training.accumulation: unknown key; it is now called "training.gradient_accumulation_steps"',
    ),
    (
        {"training__lr": 5},
        'training.lr: unknown key; "training" takes "epochs", "batch_size", "gradient_accumulation_steps", '
        '"joint_batch_statistics", "rematerialize" and "deterministic"',
    ),
    (
        {"tau__\n\x1b[31m": 5},
        r'tau."\n\u001b[31m": unknown key; "tau" takes "schedule", "base", "end" and "drop_at"',
    ),
    (
        {"views__first__croparea": [1, 1]},
        'views.first.croparea: unknown key; did you mean "crop_area"?',
    ),
    (
        {"name": GONE},
        "name: missing; expected a name of at most 100 letters, digits, '.', '_' and '-', a letter "
        "or digit first",
    ),
    (
        {"optimizer__base_learning_rate": GONE},
        "optimizer.base_learning_rate: missing; expected a number above 0",
    ),
    ({"training": GONE}, 'training: missing; expected an object with "epochs" and "batch_size"'),
    (
        {"about": {"measured": "no", "time": "", "hardware": "", "accuracy": ""}},
        "about.reproduces: missing; expected a string",
    ),
]
WRONG_VALUES = [
    (
        {"training__batch_size": 4.5},
        "training.batch_size: expected a whole number of 2 or more; received 4.5",
    ),
    (
        {"training__batch_size": 1},
        "training.batch_size: expected a whole number of 2 or more; received 1",
    ),
    (
        {"training__epochs": 100.0},
        "training.epochs: expected a whole number of 1 or more; received 100.0; did you mean 100?",
    ),
    (
        {"training__epochs": "100"},
        'training.epochs: expected a whole number of 1 or more; received "100"; did you mean 100, '
        "without quotes?",
    ),
    (
        {"training__epochs": True},
        "training.epochs: expected a whole number of 1 or more; received true",
    ),
    (
        {"training__epochs": [5]},
        "training.epochs: expected a whole number of 1 or more; received [5]",
    ),
    ({"training__deterministic": 1}, "training.deterministic: expected true or false; received 1"),
    (
        {"training__deterministic": "true"},
        'training.deterministic: expected true or false; received "true"; did you mean true, '
        "without quotes?",
    ),
    (
        {"data__source": "textres"},
        f'data.source: expected {SOURCES}; received "textres"; did you mean "textures"?',
    ),
    (
        {"data__source": "STL-10"},
        f'data.source: expected {SOURCES}; received "STL-10"; did you mean "stl10"?',
    ),
    ({"data__source": None}, f"data.source: expected {SOURCES}; received null"),
    (
        {"data__pretrain": 3},
        'data.pretrain: expected "unlabelled", "train", "train+unlabelled" or null; received 3',
    ),
    (
        {"data__pretrain_images": 0},
        "data.pretrain_images: expected a whole number from 1 to 100000000, or null; received 0",
    ),
    (
        {"data__pretrain_images": 10**17},
        "data.pretrain_images: expected a whole number from 1 to 100000000, or null; received "
        "100000000000000000",
    ),
    *(
        (
            {"encoder__name": name},
            f'encoder.name: expected {ENCODERS}; received "{name}"{hint}',
        )
        for name, hint in (
            ("resnet19", '; did you mean "resnet18"?'),
            ("keras.applications/", ""),
            ("my encoders:small", ""),
            ("keras_hub/hf://somebody/model", ""),
        )
    ),
    (
        {"encoder__width": 1e300},
        "encoder.width: expected a number above 0 and of 1000 or less; received 1e+300",
    ),
    (
        {"projector__output_size": 10**12},
        "projector.output_size: expected a whole number from 2 to 1000000; received 1000000000000",
    ),
    ({"data__root": ""}, 'data.root: expected a string that is not empty, or null; received ""'),
    (
        {"name": "a/b"},
        "name: expected a name of at most 100 letters, digits, '.', '_' and '-', a letter or digit "
        'first; received "a/b"',
    ),
    ({"seed": -1}, "seed: expected a whole number from 0 to 2147483647; received -1"),
    ({"seed": 10**30}, "seed: expected a whole number from 0 to 2147483647; received 1e+30"),
    ({"tau__base": 1.5}, "tau.base: expected a number from 0 to 1; received 1.5"),
    ({"tau__base": math.nan}, "tau.base: expected a number from 0 to 1; received NaN"),
    (
        {"optimizer__base_learning_rate": math.inf},
        "optimizer.base_learning_rate: expected a number above 0; received Infinity",
    ),
    (
        {"optimizer__base_learning_rate": 0},
        "optimizer.base_learning_rate: expected a number above 0; received 0",
    ),
    (
        {"optimizer__momentum": 1},
        "optimizer.momentum: expected a number of 0 or more and below 1; received 1",
    ),
    (
        {"optimizer__weight_decay": "1e-6"},
        'optimizer.weight_decay: expected a number of 0 or more; received "1e-6"; did you mean '
        "1e-6, without quotes?",
    ),
    ({"optimizer": []}, 'optimizer: expected an object with "base_learning_rate"; received []'),
    ({"projector": None}, "projector: expected an object; received null"),
    (
        {"views__preset": ["byol"]},
        'views.preset: expected "byol", "stl10", "simclr", "simsiam" or "none"; received ["byol"]',
    ),
    ({"views__first": [1]}, "views.first: expected an object; received [1]"),
    ({"views__first__hue": 0.6}, "views.first.hue: expected a number from 0 to 0.5; received 0.6"),
    (
        {"views__first__crop_area": [0.5, 0.2]},
        "views.first.crop_area: expected two numbers [low, high] with 0 < low <= high <= 1; "
        "received [0.5, 0.2]",
    ),
    (
        {"views__first__crop_area": [0.2, 0.5, 1]},
        "views.first.crop_area: expected two numbers [low, high] with 0 < low <= high <= 1; "
        "received [0.2, 0.5, 1]",
    ),
    (
        {"views__second__blur_sigma": 2},
        "views.second.blur_sigma: expected two numbers [low, high] with 0 < low <= high <= 100; "
        "received 2",
    ),
    (
        {"views__mean": [0.5, "x", None]},
        'views.mean: expected a list of numbers, one for each channel, or null; received [0.5, "x", null]',
    ),
    (
        {"views__std": [0.5, 0, 0.5]},
        "views.std: expected a list of numbers above 0, one for each channel, or null; received [0.5, 0, 0.5]",
    ),
    (
        {"run__root": ["a" * 100]},
        f'run.root: expected a string that is not empty; received ["{"a" * 55}...',
    ),
    ({"run__root": "\ud800"}, r'run.root: expected Unicode text; received "\ud800"'),
    (
        {"data__root": "caf\udce9"},
        r'data.root: expected Unicode text; received "caf\udce9"; a folder with such a name can be '
        "named by a link (ln -s)",
    ),
    (
        {"data__root": "a\0b"},
        r'data.root: expected text without NUL characters; received "a\u0000b"',
    ),
]
CLASHES = [
    (
        {"data__source": "folder"},
        'data.root: missing; expected the folder that holds the photos, as data.source is "folder"',
    ),
    (
        {"data__source": "textures", "views__size": 32, "data__root": "photos"},
        'data.root: expected null, as data.source "textures" reads no folder; received "photos"',
    ),
    (
        {"data__source": "folder", "data__root": "photos", "data__archive": "a.tar"},
        'data.archive: expected null, its default, as data.source "folder" has no archive; '
        'received "a.tar"',
    ),
    (
        {"data__source": "cifar10", "data__pretrain": "unlabelled", "views__size": 32},
        'data.pretrain: expected "train" or null, as data.source "cifar10" has no unlabelled '
        'images; received "unlabelled"',
    ),
    (
        {"data__image_size": 128},
        'data.image_size: expected at most 96, the side of the images of data.source "stl10"; '
        "received 128",
    ),
    (
        {"data__source": "folder", "data__root": "photos", "data__cache": "memory"},
        (
            "data.image_size: missing; expected a whole number of 8 or more, "
            'as data.cache "memory" stores photos of different sizes as one array'
        ),
    ),
    (
        {"views__size": 224},
        'views.size: expected at most 96, the side of the images of data.source "stl10"; received '
        "224",
    ),
    ({"data__image_size": 64}, "views.size: expected at most data.image_size (64); received 96"),
    (
        {"data__source": "digits"},
        "views.size: expected at most 32, the side of digits if data.image_size is null; "
        "received 96",
    ),
    (
        {"views__placement": "host"},
        'views.placement: expected "step", its default, as views.engine "keras" always '
        'works in tf.data; received "host"',
    ),
    (
        {"views__exact": True},
        'views.exact: expected false, its default, as views.engine "keras" is exact; received true',
    ),
    (
        {"encoder": {"name": "convnet", "zero_init_residual": True}},
        'encoder.zero_init_residual: expected false, its default, as encoder.name "convnet" '
        "doesn't support it; received true",
    ),
    (
        {"projector": {"output_center": False}},
        "projector.output_center: expected true, its default, as projector.normalize_output is "
        "false; received false",
    ),
    (
        {
            "projector": {
                "normalization": "data_init",
                "normalize_output": True,
                "output_scale": False,
            }
        },
        "projector.output_scale: expected true, its default, as projector.normalization "
        '"data_init" is a scale and an offset; received false',
    ),
    (
        {"training__gradient_accumulation_steps": 5},
        "training.gradient_accumulation_steps: expected a divisor of training.batch_size (64); received 5",
    ),
    (
        {"devices": {"strategy": "mirrored", "jit_compile": "on"}},
        (
            'devices.jit_compile: expected "auto" or "off", as with devices.strategy "mirrored" replicas '
            "share variables that XLA can't reach; "
            'received "on"'
        ),
    ),
    (
        {"devices": {"strategy": "multi_worker", "jit_compile": "on"}},
        (
            'devices.jit_compile: expected "auto" or "off", as with devices.strategy "multi_worker" '
            "replicas share variables that XLA can't "
            'reach; received "on"'
        ),
    ),
    (
        {"encoder": {"name": "keras.applications/MobileNet", "width": 0.5}},
        'encoder.width: expected 1, its default, as encoder.name "keras.applications/MobileNet" '
        "is built without it; received 0.5",
    ),
    (
        {"encoder": {"name": "my_encoders:small", "normalization": "layer"}},
        'encoder.normalization: expected "batch", its default, as encoder.name "my_encoders:small" '
        'is built without it; received "layer"',
    ),
    (
        {"encoder__width": 0.3},
        'encoder.width: expected a multiple of 1/64, as the first layer of "resnet50" has 64 x '
        "width channels; received 0.3",
    ),
    (
        {"encoder": {"name": "convnet", "width": 1 / 64}},
        'encoder.width: expected a multiple of 1/32, as the first layer of "convnet" has 32 x '
        "width channels; received 0.015625",
    ),
    (
        {"tau": {"schedule": "constant", "end": 1}},
        'tau.end: expected null, as tau.schedule "constant" has no end; received 1',
    ),
    (
        {"tau": {"base": 0.99, "end": 0.5}},
        'tau.end: expected tau.base (0.99) or more, as tau.schedule "cosine" rises; received 0.5',
    ),
    (
        {"tau": {"schedule": "inverse_cosine", "base": 0.9, "end": 0.95}},
        'tau.end: expected tau.base (0.9) or less, as tau.schedule "inverse_cosine" falls; '
        "received 0.95",
    ),
    (
        {"tau": {"schedule": "inverse_cosine", "base": 0.3}},
        "tau.end: expected tau.base (0.3) or less (null is 0.5), as tau.schedule "
        '"inverse_cosine" falls; received null',
    ),
    (
        {"tau": {"drop_at": 0.5}},
        'tau.drop_at: expected null, its default, as tau.schedule "cosine" drops nothing; '
        "received 0.5",
    ),
    (
        {"tau": {"base": 0.99}, "objective": {"target": "online"}},
        'tau.base: expected 0.996, its default, as objective.target "online" averages nothing; '
        "received 0.99",
    ),
    (
        {"objective": {"target": "teacher"}},
        "objective.teacher: missing; expected the path of an encoder, as objective.target is "
        '"teacher"',
    ),
    (
        {"objective": {"teacher": "runs/big"}},
        'objective.teacher: expected null, as objective.target is "ema"; received "runs/big"',
    ),
    (
        {"objective": {"target": "teacher", "teacher": "x"}, "projector": {"output_size": 64}},
        'projector.output_size: expected 256, its default, as with objective.target "teacher" the '
        "projection is as wide as the teacher's representation; received 64",
    ),
    (
        {"objective": {"negatives": 0.5}},
        "objective.temperature: missing; expected a number above 0, as objective.negatives is 0.5",
    ),
    (
        {"objective": {"temperature": 0.1}},
        "objective.temperature: expected null, as objective.negatives is 0; received 0.1",
    ),
    (
        {"objective": {"negatives": 1, "temperature": 0.1, "similarity": "cross_entropy"}},
        'objective.negatives: expected 0, its default, as objective.similarity "cross_entropy" '
        "uses no negatives; received 1",
    ),
    (
        {"predictor": {"kind": "fixed", "schedule": "constant"}},
        'predictor.schedule: expected null, its default, as predictor.kind "fixed" is not '
        'trained; received "constant"',
    ),
    (
        {"predictor": {"kind": "none", "learning_rate_multiplier": 10}},
        'predictor.learning_rate_multiplier: expected 1, its default, as predictor.kind "none" is not trained; '
        "received 10",
    ),
    (
        {"encoder": {"name": "resnet18", "width": 0.125, "normalization": "group"}},
        (
            'encoder.normalization: expected another one, as "group" divides channels by 16 and '
            'the first layer of "resnet18" has 8; '
            'received "group"'
        ),
    ),
    (
        {"projector": {"hidden_size": 100, "normalization": "group"}},
        'projector.normalization: expected another one, as "group" divides projector.hidden_size by 16, '
        'and it is 100; received "group"',
    ),
    (
        {"predictor": {"hidden_size": 16, "normalization": "group"}},
        'predictor.normalization: expected another one, as "group" would normalise each of the 16 '
        'units of predictor.hidden_size alone, to 0; received "group"',
    ),
    (
        {
            "projector": {"output_size": 100},
            "predictor": {"normalization": "group", "normalize_output": True},
        },
        'predictor.normalization: expected another one, as "group" divides projector.output_size by '
        '16, and it is 100; received "group"',
    ),
    (
        {"optimizer__warmup_epochs": 100},
        "optimizer.warmup_epochs: expected fewer than training.epochs (100), as the cosine follows "
        "the warm-up; received 100",
    ),
    (
        {"optimizer__schedule": "constant", "optimizer__warmup_epochs": 100.5},
        "optimizer.warmup_epochs: expected at most training.epochs (100); received 100.5",
    ),
    (
        {"data__pretrain_images": 50},
        "training.batch_size: expected at most data.pretrain_images (50), or no batch is ever "
        "full; received 64",
    ),
    (
        {"devices": {"strategy": "gpu", "tpu": "grpc://10.0.0.1"}},
        'devices.tpu: expected "local", its default, as devices.strategy "gpu" uses no TPU; '
        'received "grpc://10.0.0.1"',
    ),
    (
        {"devices": {"strategy": "tpu", "precision": "mixed_float16"}},
        (
            'devices.precision: expected "float32" or "mixed_bfloat16", as devices.strategy "tpu" '
            "has no fast float16; "
            'received "mixed_float16"'
        ),
    ),
    (
        {"probe__train_images": 10},
        "probe.neighbours: expected at most probe.train_images (10); received 20",
    ),
]


@pytest.mark.parametrize(("changes", "text"), WRONG_KEYS + WRONG_VALUES + CLASHES)
def test_message_of_one_mistake(changes, text):
    assert message(edited(**changes)) == f"c.json: {text}"


# Invalid text -> the message after "c.json". The words after "invalid JSON" are Python's own, which
# has a message for trailing commas since 3.13.
NO_KEY = "invalid JSON: expecting property name enclosed in double quotes"
NO_VALUE = "invalid JSON: expecting value"
ILLEGAL_COMMA = sys.version_info >= (3, 13)
BROKEN = [
    (
        '{\n  "name": "x",\n}',
        ":2:14: invalid JSON: illegal trailing comma before end of object"
        if ILLEGAL_COMMA
        else f":3:1: {NO_KEY}",
    ),
    (
        '{"views": [1, 2, ]}',
        ":1:16: invalid JSON: illegal trailing comma before end of array"
        if ILLEGAL_COMMA
        else f":1:18: {NO_VALUE}",
    ),
    ('{\n  // mine\n  "name": "x"}', f":2:3: {NO_KEY}"),
    ('{"name": "x" # mine\n}', ":1:14: invalid JSON: expecting ',' delimiter"),
    ('{\n  "seed": 1\n  "name": "x"}', ":3:3: invalid JSON: expecting ',' delimiter"),
    ('{"a": [1, 2}', ":1:12: invalid JSON: expecting ',' delimiter"),
    ('{"name": "x"', ":1:13: invalid JSON: expecting ',' delimiter"),
    ('{"name" "x"}', ":1:9: invalid JSON: expecting ':' delimiter"),
    ('{"seed": 1, name: "x"}', f":1:13: {NO_KEY}"),
    ("{'name': 'x'}", f":1:2: {NO_KEY}"),
    ("{\"name\": 'x'}", f":1:10: {NO_VALUE}"),
    ('{"name": x}', f":1:10: {NO_VALUE}"),
    ('{"name": }', f":1:10: {NO_VALUE}"),
    ('{"a": True}', f":1:7: {NO_VALUE}"),
    ('{"a": None}', f":1:7: {NO_VALUE}"),
    ('{"a": .5}', f":1:7: {NO_VALUE}"),
    ('{"a": 1_000}', ":1:8: invalid JSON: expecting ',' delimiter"),
    ('{"name": "x\n}', ":1:12: invalid JSON: invalid control character at"),
    ('{"name": "x}', ":1:10: invalid JSON: unterminated string starting at"),
    (r'{"root": "C:\photos"}', r":1:13: invalid JSON: invalid \escape"),
    ('{"name": "x"}}', ":1:14: invalid JSON: extra data"),
    ("[" * 100_000, ": expected at most 100 levels of nesting; received more"),
    ('{"a":' * 100_000, ": expected at most 100 levels of nesting; received more"),
    ("[" * 101 + "]" * 101, ": expected at most 100 levels of nesting; received more"),
    ("[" * 100 + "]" * 100, f": expected an object at the top level; received {'[' * 57}..."),
    (b'{\n "name": "\xe9t\xe9"}', ":2:11: expected text in UTF-8; received byte 0xe9"),
    ('{"name": "x"}'.encode("utf-16"), ":1:1: expected text in UTF-8; received byte 0xff"),
    ("", ": expected an object; received an empty file"),
    ("\n \n", ": expected an object; received an empty file"),
    ("[1, 2]", ": expected an object at the top level; received [1, 2]"),
    ("null", ": expected an object at the top level; received null"),
    (" " * 1_000_001, ": expected a file of at most 1000 kB; received 1000 kB"),
]


@pytest.mark.parametrize(("text", "expected"), BROKEN, ids=range(len(BROKEN)))
def test_invalid_file(text, expected):
    assert message(text) == f"c.json{expected}"


def test_repeated_keys_are_reported_with_their_values():
    text = (
        json.dumps(BASE)
        .replace('"epochs": 100', '"epochs": 5, "epochs": "x", "epochs": 100')
        .replace('"name"', '"seed": 1, "seed": 2, "name"')
    )
    assert message(text) == (
        "c.json: seed: expected once; received 2 times (1, 2)\nc.json: training.epochs: expected "
        'once; received 3 times (5, "x", 100)'
    )


def test_all_mistakes_are_reported_in_file_order():
    tree = {
        "training": {"epohcs": 5, "batch_size": 64},
        "optimizer": {"name": "LARS", "warmup_epochs": 7, "base_learning_rate": -1, "lr": 1},
        "name": "mine",
        "projector": {"hidden_size": 0},
        "data": {
            "source": "cifar10",
            "pretrain_images": 50,
            "cache": "disk",
            "pretrain": "unlabelled",
        },
        "devices": {"strategy": "cpu", "precision": "mixed_float16", "gpus": 2},
        "tau": {"schedule": "drop", "end": 0.5, "momentum": 1},
    }
    assert message(tree, ["data.image_size=x", "probe.every_epochs=0"]).splitlines() == [
        'c.json: training.epohcs: unknown key; did you mean "epochs"?',
        "c.json: training.batch_size: expected at most data.pretrain_images (50), or no batch is "
        "ever full; received 64",
        'c.json: optimizer.name: expected "lars", "adam", "adamw", "lamb" or "sgd"; received '
        '"LARS"; did you mean "lars"?',
        "c.json: optimizer.base_learning_rate: expected a number above 0; received -1",
        (
            'c.json: optimizer.lr: unknown key; "optimizer" takes "name", "base_learning_rate", '
            '"reference_batch_size", "schedule", '
            '"warmup_epochs", "weight_decay", "exclude_norm_and_bias", "momentum" and "layer_decay"'
        ),
        "c.json: projector.hidden_size: expected a whole number from 1 to 1000000; received 0",
        'c.json: data.cache: expected "auto", "memory" or "none"; received "disk"',
        'c.json: data.pretrain: expected "train" or null, as data.source "cifar10" has no '
        'unlabelled images; received "unlabelled"',
        (
            'c.json: devices.precision: expected "float32" or "mixed_bfloat16", as '
            'devices.strategy "cpu" has no fast float16; '
            'received "mixed_float16"'
        ),
        'c.json: devices.gpus: unknown key; "devices" takes "strategy", "tpu", "precision", '
        '"jit_compile", "steps_per_execution", "start_timeout_minutes" and '
        '"worker_timeout_minutes"',
        'c.json: tau.end: expected null, as tau.schedule "drop" has no end; received 0.5',
        'c.json: tau.momentum: unknown key; it belongs to "optimizer"',
        'c.json: views: missing; expected an object with "size"',
        '--set data.image_size=x: expected a whole number of 8 or more, or null; received "x"',
        "--set probe.every_epochs=0: expected a whole number of 1 or more; received 0",
    ]


# Overrides -> the complete message. The file is BASE.
OVERRIDES = [
    (
        ["training.epohcs=5"],
        '--set training.epohcs=5: unknown key; did you mean "epochs" (now 100)?',
    ),
    (
        ["trainnig.epochs=5"],
        '--set trainnig.epochs=5: trainnig: unknown key; did you mean "training"?',
    ),
    (
        ["training.epochs=many"],
        '--set training.epochs=many: expected a whole number of 1 or more; received "many"',
    ),
    (
        ["training.epochs="],
        '--set training.epochs=: expected a whole number of 1 or more; received ""',
    ),
    (["tau.base=NaN"], "--set tau.base=NaN: expected a number from 0 to 1; received NaN"),
    (
        ["name=a b"],
        "--set name=a b: expected a name of at most 100 letters, digits, '.', '_' and '-', a "
        'letter or digit first; received "a b"',
    ),
    (
        ["data.source=textres"],
        f'--set data.source=textres: expected {SOURCES}; received "textres"; did you mean '
        '"textures"?',
    ),
    (["projector=5"], "--set projector=5: expected an object; received 5"),
    (
        ['tau={"base": 2}'],
        '--set tau={"base": 2}: tau.base: expected a number from 0 to 1; received 2',
    ),
    (
        ['tau={"base": 0, "base": 1}'],
        '--set tau={"base": 0, "base": 1}: tau.base: expected once; received 2 times (0, 1)',
    ),
    (
        ["views.first.crop_area=[0.2,1"],
        "--set views.first.crop_area=[0.2,1: expected two numbers [low, high] with 0 < low <= high "
        '<= 1; received "[0.2,1"',
    ),
    (
        ["training.epochs"],
        "--set training.epochs: expected KEY=VALUE, for example training.epochs=5",
    ),
    (
        ["a." * 1000 + "a=5"],
        f"--set {'a.' * 28}a...: expected KEY=VALUE, for example training.epochs=5",
    ),
    (["=5"], "--set =5: expected KEY=VALUE, for example training.epochs=5"),
    (
        ["training..epochs=5"],
        "--set training..epochs=5: expected KEY=VALUE, for example training.epochs=5",
    ),
    (
        ["training.epochs.x=5"],
        '--set training.epochs.x=5: unknown key; "training.epochs" is no section',
    ),
    (
        ["data.source=folder"],
        "--set data.source=folder: data.root: missing; expected the folder that holds the photos, "
        'as data.source is "folder"',
    ),
    (
        ["training.epochs=5", "optimizer.warmup_epochs=5"],
        "--set optimizer.warmup_epochs=5: expected fewer than training.epochs (5), as the cosine "
        "follows the warm-up; received 5",
    ),
    (
        ["data.pretrain_images=50"],
        (
            "--set data.pretrain_images=50: training.batch_size: expected at most "
            "data.pretrain_images (50), or no batch is ever full; "
            "received 64"
        ),
    ),
    (
        ["about.time=1 h", 'about.measured="no"', "about.hardware=x", "about.accuracy=y"],
        "--set about.time=1 h: about.reproduces: missing; expected a string",
    ),
    (
        ["seed=-1", "x", "probe.k=3"],
        (
            "--set seed=-1: expected a whole number from 0 to 2147483647; received -1\n"
            "--set x: expected KEY=VALUE, for example training.epochs=5\n"
            '--set probe.k=3: unknown key; "probe" takes "every_epochs", "split", '
            '"train_images", "test_images", "supervised", "neighbours" and "temperature"'
        ),
    ),
]


@pytest.mark.parametrize(("changes", "text"), OVERRIDES)
def test_message_of_wrong_overrides(changes, text):
    assert message(BASE, changes) == text


def test_mistakes_of_file_and_overrides_are_reported_together():
    tree = edited(training__epochs="x", tau={"end": 0.5})
    assert message(tree, ["tau.schedule=constant", "training.batch_size=1"]) == (
        'c.json: training.epochs: expected a whole number of 1 or more; received "x"\n'
        '--set tau.schedule=constant: tau.end: expected null, as tau.schedule "constant" has no '
        "end; received 0.5\n"
        "--set training.batch_size=1: expected a whole number of 2 or more; received 1"
    )


def test_malformed_override_is_reported_with_invalid_file():
    assert message("{", ["training.epochs"]) == (
        f"c.json:1:2: {NO_KEY}\n"
        "--set training.epochs: expected KEY=VALUE, for example training.epochs=5"
    )


def test_override_replaces_wrong_value_of_file():
    Path("c.json").write_text(json.dumps(edited(training__epochs="x", projector=[], about=None)))
    config = load_config(
        "c.json", ["training.epochs=7", 'projector={"hidden_size": 64}', "projector.output_size=32"]
    )
    assert (config.training.epochs, config.projector.hidden_size, config.projector.output_size) == (
        7,
        64,
        32,
    )


def load(*overrides):
    Path("c.json").write_text(json.dumps(BASE))
    return load_config("c.json", overrides)


def test_override_value_is_json_or_string():
    config = load(
        "training.epochs=5",
        "views.first.crop_area=[0.2,1]",
        "tau.schedule=inverse_cosine",
        "tau.end=null",
        "optimizer.reference_batch_size=null",
        "training.deterministic=true",
        "data.root=photos of mine",
        "optimizer.weight_decay=1e-6",
    )
    assert config.training.epochs == 5
    assert config.views.first.crop_area == (0.2, 1.0)
    assert (config.tau.schedule, config.tau.end) == ("inverse_cosine", None)
    assert config.optimizer.reference_batch_size is None
    assert config.training.deterministic is True
    assert config.data.root == "photos of mine"
    assert config.optimizer.weight_decay == 1e-6


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("data.root=123", "123"),
        ("data.root=[1]", "[1]"),
        ('data.root="a=b"', "a=b"),
        ("data.root=a=b", "a=b"),
        ("data.root=null", None),
    ],
)
def test_override_of_string_key_is_a_string(change, value):
    assert load(change).data.root == value


@pytest.mark.parametrize(
    ("change", "value"),
    [("name=2024", "2024"), ("name=null", "null"), ("name=true", "true"), ("name=1.50", "1.50")],
)
def test_override_of_name_may_look_like_json(change, value):
    assert load(change).name == value


def test_last_of_two_overrides_wins():
    assert load("training.epochs=5", "training.epochs=6").training.epochs == 6


def test_missing_keys_have_their_defaults():
    config = load()
    assert config == Config.model_validate(BASE)
    assert (config.tau.base, config.projector.output_size, config.data.cache) == (
        0.996,
        256,
        "auto",
    )


def test_view_key_changes_its_preset():
    config = load("views.preset=byol", "views.second.hue=0.2")
    assert (
        config.views.first.blur_probability,
        config.views.second.blur_probability,
        config.views.second.hue,
    ) == (1.0, 0.1, 0.2)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_name_of_a_key_names_the_new_one(old, new):
    assert message(edited(**{old.replace(".", "__"): None})).startswith(
        f'c.json: {old}: unknown key; it is now called "{new}"'
    )
    assert describe_expected(split_key(new))


def test_resolved_config_has_every_key_and_loads_equal():
    config = load(
        "views.first.crop_aspect=[0.6666666666666666,1.5]", "data.root=\u00fc", "encoder.width=0.5"
    )
    text = resolved_json(config)
    tree = json.loads(text)
    for section, names in SECTIONS.items():
        inner = tree
        for part in section:
            inner = inner[part]
        if inner is not None:  # `about` is absent
            assert list(inner) == list(names)
    Path("resolved.json").write_text(text, encoding="utf-8")
    assert load_config("resolved.json") == config
    assert resolved_json(load_config("resolved.json")) == text


def test_byte_order_mark_is_accepted():
    Path("c.json").write_text(json.dumps(BASE), encoding="utf-8-sig")
    assert load_config("c.json").name == "mine"


def failure(path):
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


def test_missing_file_message_names_the_nearest():
    Path("mine.json").write_text("{}")
    assert failure("mien.json") == 'mien.json: no such file; did you mean "mine.json"?'
    assert (
        failure("configs/stl1.json")
        == 'configs/stl1.json: no such file; did you mean "configs/stl10.json"?'
    )
    assert (
        failure("elsewhere/imagnette")
        == 'elsewhere/imagnette: no such file; did you mean "configs/imagenette.json"?'
    )
    assert (
        failure("q.json")
        == f"q.json: no such file; the packaged recipes are {', '.join(recipes())}"
    )


def test_folder_is_refused_unless_a_recipe_has_its_name():
    Path("photos").mkdir()  # also the name of a recipe, which is loaded
    Path("other.json").mkdir()
    assert load_config("photos").name == "photos"
    assert failure("other.json") == "other.json: expected a JSON file; received a folder"


def test_impossible_file_names_are_reported():
    assert failure("a" * 300) == f"{'a' * 197}...: can't be read: File name too long"
    assert (
        failure("a\nb.json")
        == rf"a\nb.json: no such file; the packaged recipes are {', '.join(recipes())}"
    )


@pytest.mark.parametrize(
    "path", ["stl10", "stl10.json", "configs/stl10.json", "configs/stl10", Path("stl10")]
)
def test_packaged_recipe_is_found_by_any_spelling(path):
    assert load_config(path) == load_config(ROOT / "configs/stl10.json")


def test_existing_file_has_priority_over_packaged_recipe():
    Path("stl10.json").write_text(json.dumps(BASE))
    assert load_config("stl10.json").name == "mine"


def test_default_is_the_demo_recipe():
    assert load_config() == load_config(None) == load_config("demo")
    assert load_config().data.source == "textures"
    with pytest.raises(ConfigError, match=r"^--set data.root=x: expected null"):
        load_config(None, ["data.root=x"])


def test_config_built_in_python_is_validated():
    with pytest.raises(ValidationError, match=r"views.size: expected at most 96"):
        Config.model_validate(edited(views__size=224))


def test_every_key_has_an_expected_text():
    assert all(
        describe_expected((*section, name)) for section, names in SECTIONS.items() for name in names
    )


def test_random_values_give_a_config_or_config_error():
    values = [
        None,
        True,
        0,
        -1,
        1.5,
        1e300,
        10**40,
        math.nan,
        "",
        "x",
        "\ud800",
        "64",
        [],
        [0.1, 0.2],
        [[]],
        {},
        {"a": {"b": 1}},
        {"base": 0.5},
    ]
    keys = [(*section, name) for section, names in SECTIONS.items() for name in names]
    rng = random.Random(0)
    for _ in range(500):
        tree = edited()
        for _ in range(rng.randint(1, 4)):
            key = rng.choice(keys)
            section = tree
            for part in key[:-1]:
                if not isinstance(section.get(part), dict):
                    section[part] = {}
                section = section[part]
            section[rng.choice([key[-1], key[-1][:-1], "x.y"])] = rng.choice(values)
        Path("c.json").write_text(json.dumps(tree))
        try:
            load_config(
                "c.json",
                rng.choice([(), ("tau.end=0.5",), ("data=5",), ("views.first.hue=1",), ("a.b=1",)]),
            )
        except ConfigError as error:
            lines = str(error).split("\n")
            assert all(line.startswith(("c.json: ", "--set ")) for line in lines)
            assert len(set(lines)) == len(lines)
            assert all(line.isprintable() for line in lines)


def test_mistake_is_reported_fast_and_without_tensorflow():
    program = (
        "import sys, time\n"
        "from byol_tf.config.loading import ConfigError, load_config\n"
        "try:\n"
        "    load_config(None, ['training.epochs=5', 'training.epohcs=6'])\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
        "print(sorted(name for name in ('keras', 'tensorflow', 'numpy') if name in sys.modules))\n"
        "print(time.process_time(), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (
        done.stdout == '--set training.epohcs=6: unknown key; did you mean "epochs" (now 5)?\n[]\n'
    )
    assert float(done.stderr) < 3  # about 0.3 s of CPU; TensorFlow alone takes longer than 3
