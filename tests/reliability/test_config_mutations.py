"""Tests with randomly mutated and giant configs: each is loaded or refused by key, in short time."""

import gc
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from byol_tf.config import validation
from byol_tf.config.loading import load_config, recipes, resolved_json
from byol_tf.errors import ConfigError
from tests.helpers.waiting import HANG

ROOT = Path(__file__).resolve().parents[2]
VALUES = [
    *(
        None,
        True,
        0,
        -1,
        1,
        2,
        7,
        1.5,
        1e300,
        -1e-320,
        10**40,
        float("nan"),
        float("inf"),
        "",
        "x",
        "\ud800",
        "a\x00\x1b[31m\n",
        "64",
    ),
    *(
        "../../etc/passwd",
        "/",
        "x" * 5_000,
        "auto",
        "none",
        [],
        [0.1, 0.2],
        [[[]]],
        ["\udfff"],
        {},
        {"a": {"b": 1}},
        {"base": 0.5},
    ),
]
TEXTS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b"\\ud800",
    b"null",
    b"NaN",
    b"-",
    b"1e999",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"//",
]


def key_paths(tree: Any, at: tuple = ()) -> list[tuple]:
    """Returns the path of every key of a tree."""
    paths = []
    for key, value in tree.items():
        paths.append((*at, key))
        if isinstance(value, dict):
            paths += key_paths(value, (*at, key))
    return paths


def mutate_text(text: str, rng: random.Random) -> bytes:
    """Changes one to four values, keys, sections or bytes of a config's text."""
    if rng.random() < 0.3:
        data = bytearray(text.encode())
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(data))
            data[start : start + rng.choice([0, 0, 1, 1, 5, 200])] = rng.choice(TEXTS) * rng.choice(
                [1, 1, 1, 30]
            )
        return bytes(data)
    tree = json.loads(text)
    for _ in range(rng.randint(1, 4)):
        *path, last = rng.choice(key_paths(tree) or [("name",)])
        section = tree
        for part in path:
            section = section[part]
        change = rng.randrange(5)
        if change == 0:
            section.pop(last, None)
        elif change == 1:
            section[
                rng.choice([last[:-1], last + "s", last.upper(), "\ud800", "", "x.y", "\n"])
            ] = section.pop(last, None)
        elif change == 2:
            section[last] = json.loads(
                json.dumps(tree.get(rng.choice(list(tree)) if tree else "x"))
            )
        else:
            section[last] = rng.choice(VALUES)
    return json.dumps(tree).encode()


def load_or_message(path: Path, overrides: tuple[str, ...] = ()) -> str | None:
    """Loads a config and checks the resolved one or the form of the message.

    Returns:
        None, or the message.
    """
    try:
        config = load_config(path, overrides)
    except ConfigError as error:
        text = str(error)
        text.encode()
        assert text
        for line in text.split("\n"):
            assert line.startswith((f"{path}:", "--set ")), line
            assert line.isprintable(), line
            assert len(line) < 1_500 + len(str(path)), line
        return text
    resolved = path.with_name("resolved.json")
    resolved.write_text(resolved_json(config), encoding="utf-8")
    assert load_config(resolved) == config
    resolved.unlink()
    return None


def mutate(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Returns how many of `count` mutations of each recipe are valid, and how many refused."""
    rng, valid, refused = random.Random(seed), 0, 0
    path = folder / "c.json"
    for name in recipes():
        text = (ROOT / "configs" / f"{name}.json").read_text()
        for _ in range(count):
            path.write_bytes(mutate_text(text, rng))
            overrides = rng.choice(
                [
                    (),
                    (),
                    (),
                    ("tau.end=0.5",),
                    ("data=5",),
                    ("views.first.hue=1",),
                    ("a.b=1",),
                    ("run={}",),
                ]
            )
            try:
                refused_now = load_or_message(path, overrides) is not None
            except Exception as error:
                raise AssertionError(
                    f"{name} {overrides}: {path.read_bytes()[:3_000]!r}"
                ) from error
            valid, refused = valid + (not refused_now), refused + refused_now
    assert sorted(folder.iterdir()) == [path]
    return valid, refused


def test_mutated_configs(tmp_path):
    valid, refused = mutate(tmp_path, 100, seed=0)
    assert min(valid, refused) > 20


@pytest.mark.long
def test_2000_mutations_of_each_config(tmp_path, report):
    valid, refused = mutate(tmp_path, 2_000, seed=1)
    count = valid + refused
    assert count == 2_000 * len(recipes())
    report(
        "config",
        f"2,000 mutations of each of {len(recipes())} configs: {valid:,} valid, {refused:,} "
        "refused by key, no traceback",
        count,
    )


@pytest.mark.long
def test_mutations_through_the_command(tmp_path, report):
    """A shell gets exit code 2, only the message on standard error, and no run folder."""
    rng, text = random.Random(2), (ROOT / "configs" / "demo.json").read_text()
    path, refused = tmp_path / "c.json", 0
    while refused < 20:
        path.write_bytes(mutate_text(text, rng))
        message = load_or_message(path)
        if message is None:
            continue
        refused += 1
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "byol_tf.train",
                "--config",
                str(path),
                "--run-dir",
                str(tmp_path / "run"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (2, "", message + "\n")
        assert sorted(tmp_path.iterdir()) == [path]
    report(
        "config",
        "mutated configs through the command: exit code 2, the message, no run folder",
        refused,
    )


GIANTS = {
    "unknown keys": json.dumps({f"k{number}": number for number in range(60_000)}),
    "unknown keys alike": json.dumps(
        {"training": {f"epoch{number}": number for number in range(45_000)}}
    ),
    "one key repeated": "{" + ",".join(['"seed": 1'] * 90_000) + "}",
    "keys repeated": json.dumps({f"k{number}": 1 for number in range(30_000)})[:-1]
    + ',"k1": 2' * 30_000
    + "}",
    "long string": json.dumps({"name": "a" * 999_000}),
    "long key": json.dumps({"x" * 900_000: 1}),
    "dotted key": json.dumps({".".join("a" * 400_000): 1}),
    "half characters": '{"' + "\\ud800" * 150_000 + '": 1}',
    "digits": '{"seed": ' + "9" * 900_000 + "}",
    "exponent": '{"seed": 1e' + "9" * 900_000 + "}",
    "deep lists": "[" * 900_000,
    "deep objects": '{"a":' * 150_000,
    "quotes": '{"a": ' + '"' * 900_001,
    "backslashes": '{"a": "' + "\\" * 900_001,
    "commas": "[" + "," * 900_000,
    "spaces": '{"a": 1' + " " * 900_000,
    "a word": "x" * 900_000,
    "minus": "-" * 900_000,
    "100 MB": " " * 100_000_000,
}


@pytest.mark.parametrize("name", ["unknown keys", "long key", "half characters", "deep objects"])
def test_some_giant_configs(tmp_path, name):
    _check_giant(tmp_path, name)


@pytest.mark.long
def test_giant_configs(tmp_path, report):
    for name in GIANTS:
        _check_giant(tmp_path, name)
    report(10, "giant configs: refused within 10 s of CPU, at most 64 MiB more memory", len(GIANTS))


def peak() -> int:
    """Returns the peak memory of this process in KiB."""
    return int(
        next(
            line
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM")
        ).split()[1]
    )


def _check_giant(tmp_path: Path, name: str) -> None:
    """Checks CPU time, length of the message and additional memory."""
    path = tmp_path / "c.json"
    path.write_text(GIANTS[name])
    load_config("demo")
    gc.collect()  # what earlier tests left would be counted or not as it happens to be collected
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, began = peak(), time.thread_time()
    text = load_or_message(path)
    assert text is not None
    assert len(text) < 60_000
    assert time.thread_time() - began < 10
    assert peak() - before < 64 * 1024


def test_limit_on_mistakes_bounds_the_time(tmp_path, monkeypatch):
    """Without the limit 3,000 mistakes take several times as long; a giant config has 60,000."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"training": {f"epoch{number}": number for number in range(3000)}}))

    def seconds() -> float:
        began = time.thread_time()  # process time would count threads of other tests
        with pytest.raises(ConfigError):
            load_config(path)
        return time.thread_time() - began

    bounded = min(seconds() for _ in range(3))
    monkeypatch.setattr(validation, "MAX_ISSUES", 10**9)
    assert seconds() > 4 * bounded


SCHEMA = json.loads((ROOT / "configs" / "schema.json").read_text())
FREE = {
    "data.root",
    "data.archive",
    "encoder.weights",
    "objective.teacher",
    "run.root",
    "devices.tpu",
}
"""Keys that may name any file, folder or machine, such as the folder of a user's photos."""


def free_texts(schema: dict, at: str = "") -> set[str]:
    """Returns the keys of a JSON schema whose value may be any text."""
    keys = set()
    for key, value in schema.get("properties", {}).items():
        ways = value.get("anyOf", [value])
        if any(
            way.get("type") == "string" and not {"enum", "const", "pattern"} & set(way)
            for way in ways
        ):
            keys.add(f"{at}{key}")
        for way in ways:
            if section := way.get("$ref", "").rpartition("/")[2]:
                keys |= free_texts(SCHEMA["$defs"][section], f"{at}{key}.")
    return keys


def test_only_six_keys_name_files_and_none_is_executed(tmp_path, monkeypatch):
    """The run's name can't leave `run.root`; `$schema` and `about` aren't read; six are free."""
    assert {key for key in free_texts(SCHEMA) if not key.startswith("about.")} == FREE | {"$schema"}
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.json"
    demo = json.loads((ROOT / "configs" / "demo.json").read_text())
    texts = (
        "../x",
        "/etc/passwd",
        "~/x",
        "$(touch x)",
        "a/../../b",
        "; touch x",
        "__import__('os').system('touch x')",
    )
    for name in (*texts, "", ".", "..", "a" * 101):
        path.write_text(json.dumps(demo | {"name": name}))
        assert "name: expected a name" in load_or_message(path)
    path.write_text(json.dumps(demo | {"$schema": "file:///etc/passwd"}))
    assert load_or_message(path) is None
    for key in FREE:
        section, name = key.split(".")
        for text in texts:
            path.write_text(json.dumps(demo | {section: demo.get(section, {}) | {name: text}}))
            assert load_or_message(path) is None or key in load_or_message(path)
    assert os.listdir(tmp_path) == ["c.json"]
