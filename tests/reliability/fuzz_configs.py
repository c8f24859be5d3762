"""Fuzzing of the config reader with atheris, guided by coverage.

`python -m tests.reliability.fuzz_configs CORPUS [-max_total_time=600]`

The corpus is a folder; an empty one is filled with the recipes. For any bytes of a file
`load_config` must return a config that loads from its resolved form too, or raise a `ConfigError`
of printable lines that begin with the file's name, within seconds. libFuzzer's options follow the
corpus. It ends with "DONE", or writes the failing input into the current folder.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["byol_tf", "json"]):
    from byol_tf.config.loading import load_config, resolved_json
    from byol_tf.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def check(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    try:
        config = load_config(path)
    except ConfigError as error:
        assert all(
            line.startswith(f"{path}:") and line.isprintable() for line in str(error).split("\n")
        ), str(error)
        return
    path.write_text(resolved_json(config), encoding="utf-8")
    assert load_config(path) == config


def main() -> None:
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for recipe in (ROOT / "configs").glob("*.json"):
            (corpus / recipe.name).write_bytes(recipe.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.json"
        words = Path(folder) / "words.txt"
        words.write_text("".join(f'"\\"{name}\\""\n' for name in sorted(names())))
        atheris.Setup(
            [*sys.argv, "-timeout=20", "-rss_limit_mb=2048", f"-dict={words}"],
            lambda data: check(data, path),
        )
        atheris.Fuzz()


def names() -> set[str]:
    """Returns every key and every word that is a value."""
    from byol_tf.config.fields import SECTIONS, allowed_values

    keys = {(*section, name) for section, fields in SECTIONS.items() for name in fields}
    return {key[-1] for key in keys} | {word for key in keys for word in allowed_values(key)}


if __name__ == "__main__":
    main()
