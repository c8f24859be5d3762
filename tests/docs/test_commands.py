"""Every command of the pages is typed: parsed by the real parser always, and run with small
settings by the long tests."""

import argparse
import glob
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from byol_tf.__main__ import COMMANDS as BYOL_COMMANDS
from byol_tf.config.loading import load_config
from byol_tf.constants import IMAGENET
from byol_tf.study.plan import plan_study
from byol_tf.study.schema import load_study
from pipelines.sources import textures
from tests.docs.commands import (
    NOT_RUN,
    PARSED_PAGES,
    Command,
    commands,
    entry,
    named_commands,
    not_run,
)
from tests.docs.pages import PAGES, ROOT, anchors, blocks, links
from tests.helpers.waiting import HANG

COMMANDS = list({str(command): command for command in commands()}.values())
MODULES = [command for command in COMMANDS if not_run(command) is None]
NAMED = list({str(command): command for command in named_commands()}.values())


class _Parsed(Exception):
    """Carries the options of a command whose arguments are right."""


@pytest.fixture
def parsed(monkeypatch):
    """A command's `main` -> its options, at the point where it would begin to do something."""
    real = argparse.ArgumentParser.parse_args

    def stop(parser, arguments=None, namespace=None):
        raise _Parsed(real(parser, arguments, namespace))

    def parse(command: Command) -> argparse.Namespace:
        main = entry(command.module)
        with monkeypatch.context() as patch, pytest.raises(_Parsed) as done:
            patch.setattr(argparse.ArgumentParser, "parse_args", stop)
            main(command.arguments)
        return done.value.args[0]

    return parse


@pytest.mark.parametrize("command", [command for command in COMMANDS if not_run(command)], ids=str)
def test_what_is_not_run_is_there(command):
    not_run(command)(str(command))


def test_no_reason_is_left_over():
    for pattern, reason, _ in NOT_RUN:
        assert any(re.fullmatch(pattern, str(command)) for command in [*COMMANDS, *NAMED]), reason


@pytest.mark.parametrize("command", MODULES, ids=str)
def test_each_command_is_parsed_and_its_config_read(command, parsed, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert command.module, (
        f"{command.page}:{command.line}: {command}: of no kind that tests/docs/commands.py knows"
    )
    options = parsed(command)
    config = getattr(options, "config", None)
    if command.module == "byol_tf.train" and not (config or "").startswith(
        "encoders/"
    ):  # those are what converting leaves
        load_config(config, options.overrides)
    elif command.module == "byol_tf.study" and options.study is not None:
        name, file, study = load_study(options.study)
        assert plan_study(
            file, study, options.scale, options.seeds, options.only, options.overrides
        ), name


@pytest.mark.parametrize("command", NAMED, ids=str)
def test_each_command_in_a_sentence_has_the_options_that_it_names(command, monkeypatch, capsys):
    """By its help, since a sentence seldom gives all that a command has to be given. What it sets
    is read with the config or the study."""
    if not_run(command):
        return not_run(command)(str(command))
    kind = command.arguments[:1] if command.module == "byol_tf.evaluate" else []
    monkeypatch.setattr(sys, "argv", [command.module, *kind, "--help"])
    with pytest.raises(SystemExit) as done:
        entry(command.module)()
    assert done.value.code == 0
    options = re.findall(r"--[a-z][\w-]*", capsys.readouterr().out)
    assert {word for word in command.arguments if word.startswith("--")} <= set(options), (
        f"{command.page}:{command.line}"
    )
    given = dict(zip(command.arguments, command.arguments[1:], strict=False))
    sets = [
        value
        for option, value in zip(command.arguments, command.arguments[1:], strict=False)
        if option == "--set"
    ]
    if command.module == "byol_tf.study" and command.arguments:
        name, file, study = load_study(command.arguments[0])
        assert plan_study(file, study, "small", None, (), sets), name
    elif given.get("--config", "").endswith(".json"):
        monkeypatch.chdir(ROOT)
        load_config(given["--config"], sets)


SMALL = {
    "training.epochs": 1,
    "training.batch_size": 16,
    "data.pretrain_images": 64,
    "views.size": 32,
    "encoder.name": "convnet",
    "encoder.width": 0.5,
    "encoder.padding": "same",
    "encoder.zero_init_residual": "false",
    "projector.hidden_size": 32,
    "projector.output_size": 16,
    "predictor.hidden_size": 16,
    "optimizer.warmup_epochs": 0,
    "probe.train_images": 40,
    "probe.test_images": 40,
    "probe.supervised": "false",
    "devices.strategy": "cpu",
    "devices.precision": "float32",
}
"""What makes a run one of seconds. The last two: neither TPU nor GPU nor other machines are
here."""

LEARNED = {
    "training.epochs": 4,
    "data.pretrain_images": 500,
    "data.image_size": 48,
    "views.size": 48,
}
"""And of a run that is exported in int8: as many photos as a proof compares, of their own size, and
an encoder for which the nearest two of them aren't ties."""

HERE = {
    "data.source": "textures",
    "data.root": "null",
    "data.archive": "null",
    "data.image_size": "null",
}
"""In place of a data set that would be downloaded."""


def _overrides(changes: dict) -> list[str]:
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


def _holiday(folder: Path) -> None:
    """A heap of 40 photos, one from elsewhere, and labels for 30 of the heap."""
    (folder / "holiday").mkdir()
    rows = []
    for number, image in enumerate(textures.draw(0, "test", np.arange(42))):
        place = {0: "holiday/beach.jpg", 1: "other.jpg"}.get(number, f"holiday/{number:02}.jpg")
        Image.fromarray(image).convert("RGB").save(folder / place)
        if 2 <= number < 32:
            rows.append(f"{number:02}.jpg,{('sea', 'snow')[number % 10 < 5]}")
    (folder / "labels.csv").write_text("\n".join(["path,label", *rows, ""]))


def _channels(folder: Path) -> None:
    """Stacks of five channels of 16 bits, and grey photos of 16 bits, each with a class."""
    for number, image in enumerate(textures.draw(0, "train", np.arange(80))):
        grey = image.reshape(*image.shape[:2], -1)[..., 0].astype(np.uint16) * 39
        place = Path("test" if number >= 60 else "train") / f"class{number % 2}"
        for name in ("fields", "xrays"):
            (folder / name / place).mkdir(parents=True, exist_ok=True)
        stack = np.stack([grey // (channel + 1) for channel in range(5)])
        tifffile.imwrite(folder / "fields" / place / f"{number}.tif", stack)
        Image.fromarray(grey).save(folder / "xrays" / place / f"{number}.png")


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder as a reader has it: `configs/`, photos of textures, two runs under the names that
    the pages use, others' checkpoints."""
    from byol_tf.convert.__main__ import main as convert
    from byol_tf.pack.__main__ import main as pack
    from byol_tf.train.__main__ import main
    from tests.helpers import haiku_byol, torch_files, torch_resnet

    folder = tmp_path_factory.mktemp("desk")
    (folder / "configs").symlink_to(ROOT / "configs")
    for split, count in (("unlabeled", 500), ("train", 40), ("test", 20)):
        for number, image in enumerate(textures.draw(0, split, np.arange(count))):
            place = (
                folder
                / "photos"
                / split
                / ("" if split == "unlabeled" else list(textures.PATTERNS)[number % 10])
            )
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).convert("RGB").save(place / f"{number}.png")
    _holiday(folder)
    assert pack(["--images", str(folder / "photos"), "--out", str(folder / "shards")]) == 0
    _channels(folder)
    demo = folder / "runs" / "demo"
    assert main(["--run-dir", str(demo), *_overrides(SMALL)]) == 0
    own = SMALL | LEARNED | {"data.root": folder / "photos"}
    assert (
        main(
            [
                "--config",
                "photos",
                "--run-dir",
                str(demo.with_name("photos-2026-11-21-1")),
                *_overrides(own),
            ]
        )
        == 0
    )
    for name in ("mine", "slides"):
        (folder / "runs" / name).symlink_to(demo.with_name("photos-2026-11-21-1"))
    draw = runpy.run_path(str(ROOT / "examples" / "draw_slides.py"))["write"]
    draw(folder / "slides", {"unlabeled": 70, "train": 42, "test": 21})
    kinds = sorted((folder / "slides" / "train").rglob("*.jpg"))
    rows = [f"{photo.relative_to(folder / 'slides')},{photo.parent.name}" for photo in kinds]
    (folder / "kinds.csv").write_text("\n".join(["path,label", *rows]))
    shutil.copy(demo / "export" / "encoder.keras", folder)
    torch_files.save(folder / "resnet50.pth", torch_resnet.state_dict("resnet50"))
    network = haiku_byol.HaikuByol(width=1 / 16)
    haiku_byol.save(
        folder / "pretrain_res50x1.pkl",
        haiku_byol.checkpoint(network.random_weights(0), network.random_weights(1)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert convert(["pytorch", "resnet50.pth", "--out", "encoders/resnet50"]) == 0
    return folder


def small(command: Command) -> list[str]:
    """The arguments of a command that takes seconds and asks nothing of the network."""
    arguments = [
        found
        for word in command.arguments
        for found in (sorted(glob.glob(word)) if "*" in word else [word])
    ]
    if command.module == "byol_tf.train" and "--explain" not in arguments:
        options = argparse.ArgumentParser()
        options.add_argument("--config")
        options.add_argument("--set", action="append", default=[], dest="overrides")
        given = options.parse_known_args(arguments)[0]
        config = load_config(given.config, given.overrides)
        if "--run-dir" in arguments:  # that one is a run already, with another config
            arguments[arguments.index("--run-dir") + 1] += f"-{config.name}"
        changes = {
            key: value
            for key, value in SMALL.items()
            if (config.encoder.weights in (None, IMAGENET) or not key.startswith("encoder."))
            and (config.objective.teacher is None or key != "projector.output_size")
        }
        if config.encoder.weights == IMAGENET:  # nothing is downloaded here
            changes |= {"encoder.weights": "null", "encoder.frozen_epochs": 0}
            changes["encoder.freeze_batch_norm"] = "false"  # which random weights don't allow
        return [
            *arguments,
            *_overrides(
                changes
                | ({} if config.data.source in ("textures", "digits", "folder", "shards") else HERE)
            ),
        ]
    new = {"byol_tf.convert": "--out", "byol_tf.evaluate": "--export", "byol_tf.embed": "--export"}
    if (option := new.get(command.module)) in arguments:  # its folder has to be new
        shutil.rmtree(arguments[arguments.index(option) + 1], ignore_errors=True)
    if command.module == "byol_tf.evaluate":
        if arguments[0] in ("semi-supervised", "finetune", "supervised"):
            return [*arguments, "--epochs", "1", "--rates", "0.001", "--seeds", "1"]
        return (
            [*arguments, "--epochs", "1", "--rates", "0.1"]
            if arguments[0] == "linear" and "--fast" not in arguments
            else arguments
        )
    if command.module == "byol_tf.study" and arguments and "--list" not in arguments:
        if "paper" in arguments:  # its data and its hardware aren't here
            return [*arguments, "--list"]
        if "--search" in arguments:
            return [*arguments, "--search", "1", *_overrides(SMALL)]
        first = load_study(arguments[0])[2].cells[0].row
        return [*arguments, "--only", first, "--seeds", "1", *_overrides(SMALL)]
    return arguments


@pytest.mark.long
@pytest.mark.parametrize(
    "command", [each for each in MODULES if not each.page.startswith(PARSED_PAGES)], ids=str
)
def test_each_command_runs(command, desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    main = entry(command.module)
    assert main(small(command)) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


TORCH = "torch"
"""A block with this is PyTorch's side, and PyTorch is no dependency: it is compiled and not run."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_are_python_and_others_say_what_they_are(page):
    for block in blocks(page):
        # Scripts and manifests of a cluster are run and read by test_clusters.py.
        others = ("bash", "yaml") if page.name == "clusters.md" else ()
        assert block.language in ("sh", "python", "json", "text", "", *others)
        if block.language == "python":
            compile(block.text, f"{block.page}:{block.line}", "exec")


@pytest.mark.parametrize(
    "changes",
    [
        {'compile("adam")': 'compile("adam", run_eagerly=True)', "repeat(20)": "repeat(1)"},
        pytest.param({}, marks=pytest.mark.long),
    ],
    ids=["one step without a graph", "as it is"],
)
def test_the_ten_line_example_runs(changes):
    (example,) = [
        block.text
        for block in blocks(ROOT / "README.md")
        if block.language == "python" and "BYOL(encoder" in block.text
    ]
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    for one, other in changes.items():
        assert example.count(one) == 1
        example = example.replace(one, other)
    namespace = {}
    exec(compile(example, "README.md", "exec"), namespace)
    assert namespace["representations"].shape == (8, 128)


@pytest.mark.long
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.language == "python" for block in blocks(page))],
    ids=lambda p: p.name,
)
def test_python_blocks_run_one_after_another(page, desk, monkeypatch):
    """A page's blocks share their names, as in a notebook; `images` are some, and `runs/...` is the
    run that is there."""
    monkeypatch.chdir(desk)
    namespace = {
        "images": np.random.default_rng(0).integers(0, 256, (5, 40, 57, 3), dtype=np.uint8)
    }
    for block in blocks(page):
        if block.language == "python" and TORCH not in block.text:
            text = block.text.replace("runs/...", "runs/demo")
            text = text.replace('weights="imagenet"', "weights=None")  # nothing is downloaded here
            exec(compile(text, f"{block.page}:{block.line}", "exec"), namespace)
            if "representations" in block.text:
                assert (
                    len(namespace["representations"]) in (5, 8)
                    and np.isfinite(namespace["representations"]).all()
                )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_make_targets_exist():
    """Those that stand in a sentence, too."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {
        word
        for page in PAGES
        for word in re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))
    }
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_first_page_names_each_command_of_an_installation():
    page = (ROOT / "docs" / "first-run.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`byol ([a-z]+)`", page)) == set(BYOL_COMMANDS)
    assert all(
        module.removesuffix(".__main__") == f"byol_tf.{name}"
        for name, (module, _) in BYOL_COMMANDS.items()
    )  # as the page says


def test_the_workflow_runs_each_lane_on_its_python():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    asked = re.findall(r"^PYTHON_(\w+) := python(\S+)$", makefile, re.MULTILINE)
    assert dict(asked) == dict(re.findall(r'target: test-lane-(\w+), python: "(\S+)"', workflow))
    assert [lane for lane, _ in asked] == re.search(r"^LANES := (.*)$", makefile, re.MULTILINE)[
        1
    ].split()


def test_help_is_quick_and_needs_no_tensorflow():
    code = (
        "import sys, byol_tf.train.__main__ as t\ntry: t.main(['--help'])\nexcept SystemExit: "
        "assert 'tensorflow' not in sys.modules"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=HANG, check=False
        ).returncode
        == 0
    )
