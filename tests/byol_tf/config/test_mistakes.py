"""The exact message of every mistake in a file or an override, for each key by itself."""

import json
import math
import sys

import pytest

from tests.helpers.config_files import BASE, GONE, edited, message

pytestmark = pytest.mark.usefixtures("in_empty_folder")
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


@pytest.mark.parametrize(("changes", "text"), WRONG_KEYS + WRONG_VALUES)
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
