"""What the pages tell a reader to type; which of it a test can't type, and why."""

import configparser
import importlib.util
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from byol_tf import __version__
from byol_tf.__main__ import COMMANDS
from byol_tf.clusters import read_cluster
from tests.docs.pages import PAGES, ROOT, blocks, inline

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def is_byol(words: Sequence[str]) -> bool:
    """Whether the words start a command by its name: `byol train`, but not `byol --help`."""
    return words[0] == "byol" and len(words) > 1 and words[1] in COMMANDS


@dataclass(frozen=True)
class Command:
    """A command: page, line of its block, and its words without comment; continued lines are
    one."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self):
        return shlex.join(self.words)

    @property
    def module(self) -> str | None:
        """`byol_tf.train` of `python -m byol_tf.train ...` and of `byol train ...`, else None."""
        if is_byol(self.words):
            return COMMANDS[self.words[1]][0].removesuffix(".__main__")
        return self.words[2] if self.words[:2] == ("python", "-m") else None

    @property
    def arguments(self) -> list[str]:
        """What stands after the module. Three dots at the end are for what a table below the block
        adds."""
        return [word for word in self.words[2 if is_byol(self.words) else 3 :] if word != "..."]


def entry(module: str) -> Callable:
    """The function that a command's module begins with."""
    home = (
        f"{module}.__main__"
        if importlib.util.find_spec(module).submodule_search_locations
        else module
    )
    return importlib.import_module(home).main


def commands() -> Iterator[Command]:
    """Of the `sh` blocks of all pages, in order."""
    for page in PAGES:
        for block in blocks(page):
            if block.language == "sh":
                for line in block.text.replace("\\\n", " ").splitlines():
                    if words := shlex.split(line, comments=True):
                        yield Command(block.page, block.line, tuple(words))


def named_commands() -> Iterator[Command]:
    """Of the sentences and tables of all pages: often without what they have to be given, or with
    `...` or a word in capitals for it."""
    for page in PAGES:
        for line, text in inline(page):
            words = text.partition(" > ")[0].split()
            if is_byol(words) or (
                words[:2] == ["python", "-m"] and words[2] not in ("byol_tf.NAME", "benchmarks...")
            ):
                yield Command(str(page.relative_to(ROOT)), line, tuple(words))


def _make_target(text: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{text.split()[1]}:", makefile, re.MULTILINE), (
        "no such target in the Makefile"
    )


def _extras(text: str) -> None:
    (named,) = re.findall(r"\[(.+?)\]", text)
    assert set(named.split(",")) <= set(SETUP["options.extras_require"]), (
        "no such extra in setup.cfg"
    )


def _wheel(text: str) -> None:
    assert f"byol_tf-{__version__}-py3-none-any.whl[" in text, (
        "not the name that the wheel of this version has"
    )
    _extras(text)


def _cluster(text: str) -> None:
    read_cluster({"TF_CONFIG": shlex.split(text)[1].partition("=")[2]})


def _paths(text: str) -> None:
    for word in shlex.split(text):
        if word.startswith(("tests/", "benchmarks/", "examples/", "docs/")):
            assert (ROOT / word.partition("::")[0]).exists(), f"no {word}"


def _docker(text: str) -> None:
    words = shlex.split(text)
    assert (ROOT / "Dockerfile").is_file()
    for word in words:
        if word.startswith("EXTRA="):
            _extras(f"[{word.removeprefix('EXTRA=')}]")
    if words[1] == "run":
        (image,) = (place for place, word in enumerate(words) if word.startswith("byol_tf"))
        assert words[image + 1] in COMMANDS, "no such command of byol"


def _nothing(text: str) -> None:
    """There is nothing that could be wrong but the words themselves."""


NOT_RUN: list[tuple[str, str, Callable[[str], None]]] = [
    (r"make \S+", "installs packages; that there is such a target is looked at", _make_target),
    (r"pip install -e \S+", "installs packages; that there is such an extra is looked at", _extras),
    (
        r"pip wheel --no-deps \.",
        "fetches what builds it: tests/test_packaging.py builds the wheel",
        _nothing,
    ),
    (
        r"pip install '?byol_tf-\S+",
        "installs packages; that the wheel has this name and this extra is looked at",
        _wheel,
    ),
    (r"\. \.venv/bin/activate", "the environment that `make` leaves", _nothing),
    (r"python3 -m venv \.venv", "makes an environment", _nothing),
    (
        r"(hf auth login|wandb (login|sync)|trackio show)",
        "programs of others, for a login and a server",
        _nothing,
    ),
    (
        r"byol export .* --push-to-hub .*",
        "uploads: run by tests/byol_tf/export/test_hub.py against a stand-in",
        _nothing,
    ),
    (
        r"byol embed --encoder hf://.*",
        "downloads: run by tests/byol_tf/runs/test_hub.py against a stand-in",
        _nothing,
    ),
    (
        r"byol train --set 'run\.trackers=.*",
        "needs its package: run by tests/byol_tf/train/test_trackers.py",
        _nothing,
    ),
    (
        r"byol train .*data\.source=huggingface .*",
        "downloads: run by tests/pipelines/sources/test_huggingface.py on data sets of a disk",
        _nothing,
    ),
    (r"git clone .*", "fetches the repository", _nothing),
    (r"docker (build|run) .*", "needs Docker: tests/test_docker.py reads the file", _docker),
    (
        r"\.venv-engines/bin/python examples/embed_\w+\.py .*",
        "needs Ray and Beam: run by tests/byol_tf/test_examples.py",
        _paths,
    ),
    (
        r"python (examples|docs)/\w+\.py.*",
        "draws thousands of photos; that the file is there is looked at",
        _paths,
    ),
    (
        r"python -m benchmarks\.make_imagenette \S+ \S+",
        "run by tests/benchmarks on a small archive",
        _nothing,
    ),
    (
        r"python -m benchmarks\.(channels|remote_shards) .*",
        "run by tests/benchmarks on a few photos",
        _nothing,
    ),
    (
        r"export '?TF_CONFIG=.*",
        "for several machines; it is read as `multi_worker` reads it",
        _cluster,
    ),
    (r"tensorboard --logdir \S+", "a server: test_tensorboard.py opens it in a browser", _nothing),
    (
        r"saved_model_cli show --dir \S+ --all",
        "TensorFlow's own program: run by tests/byol_tf/export/test_command.py",
        _nothing,
    ),
    (r"(\w+=\S+ )?python -m pytest .*", "tests; that the files are there is looked at", _paths),
    (
        r"python -m tests\.reliability \S+",
        "reads what the reliability tests left, which take an hour",
        _nothing,
    ),
    (
        r"python -m (tests\.docs\.test_figures|byol_tf\.config\.docs)",
        "writes the pages that tests find stale",
        _nothing,
    ),
    (r"python -m tests\.reference", "run by tests/test_reference.py", _nothing),
]
"""(pattern, why it isn't run, what is looked at instead). A command of none of these that isn't
`python -m ...` fails the test."""

PARSED_PAGES = ("docs/results/",)
"""Pages that say how something was measured, hours of it: their commands are parsed and their
configs read."""


def not_run(command: Command) -> Callable[[str], None] | None:
    """What is looked at in place of a run, or None for a command that is run."""
    text = str(command)
    return next((look for pattern, _, look in NOT_RUN if re.fullmatch(pattern, text)), None)
