"""Tests of loading configs: values, overrides, and which file is meant."""

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
from tests.helpers.config_files import BASE, edited, message

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("in_empty_folder")


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
