"""`python -m byol_tf.doctor`: checks whether a run would work on this machine, and what is missing.

What is known without TensorFlow comes first; then TensorFlow is started, and one small step of
training is compiled and run.
"""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("doctor")


import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from byol_tf import __version__
from byol_tf.clusters import DESCRIPTIONS, read_cluster
from byol_tf.command_line import (
    check_writable,
    command_parser,
    ends_with_exit_code,
    program,
)
from byol_tf.devices import (
    cpu_bfloat16,
    has_fast_bfloat16,
    nvidia_card,
    prepare_environment,
)
from byol_tf.errors import USAGE_ERROR, DeviceError, OutputError
from byol_tf.logs import activity
from byol_tf.native_output import kept_native_log
from pipelines.extras import install_line
from pipelines.memory import free_memory, memory_limit

_TENSORFLOW = ("cpu", "gpu", "tpu")
"""Extras of which one is needed: each is TensorFlow for a kind of device."""
_OTHER_NAMES = {
    "tensorflow": ("tensorflow-cpu", "tensorflow-tpu", "tf-nightly"),
    "keras": ("keras-nightly",),
}
"""Further packages that hold the same modules."""
_DEVELOPMENT = ("test", "test-sources", "lint", "docs", "fuzz")
_DRIVER = 525
"""The oldest NVIDIA driver that runs CUDA 12, which TensorFlow's packages bring."""
_IMAGES = 64
_FREE_DISK = 200e6
"""Bytes that the run folder of a small recipe needs."""
_SHARED_MEMORY = 1e9
"""Bytes below which NCCL, which connects several GPUs, may fail; Docker gives 64 MB."""


@dataclass(frozen=True)
class Check:
    """Something that was looked at.

    Attributes:
        name: the heading of its line.
        text: what was found.
        problem: a sentence on why a run wouldn't work; empty where it would.
        hint: what would mend or improve it, such as a line to type; may be empty.
    """

    name: str
    text: str
    problem: str = ""
    hint: str = ""


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0 if a run would work here, else 2.
    """
    options = _parser().parse_args(arguments)
    found: list[Check] = []
    for check in _checks():
        found.append(check)
        if not options.json:
            print(f"  {check.name:<13} {check.text}")
            if check.hint:
                print(f"  {'':<13} -> {check.hint}")
    problems = [check.problem for check in found if check.problem]
    if options.json:
        checks = [dataclasses.asdict(check) for check in found]
        print(json.dumps({"works": not problems, "checks": checks}, indent=2))
    elif not problems:
        print(f"\n{program('train')} works here")
    for problem in problems:
        print(problem, file=sys.stderr)
    return USAGE_ERROR if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "doctor",
        description="Checks versions, devices, memory, disk and extras, and compiles one small "
        "step of training. Writes nothing.",
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    return parser


def _checks() -> Iterator[Check]:
    """Yields all checks, the fast ones first; those that need TensorFlow only where it is."""
    python = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Check("byol_tf", f"{__version__}, Python {python}")
    extras = requirements_by_extra()
    packages = check_packages(extras)
    yield packages
    yield from _machine_checks()
    yield check_extras(extras)
    if not packages.problem:
        yield from _tensorflow_checks()


def requirements_by_extra() -> dict[str, list[str]]:
    """Returns extra -> its requirements that aren't met; "" has those that are always needed."""
    try:
        distribution = importlib.metadata.distribution("byol-tf")
    except importlib.metadata.PackageNotFoundError:  # a checkout that isn't installed
        return {}
    names = ["", *(distribution.metadata.get_all("Provides-Extra") or ())]
    return {extra: _unmet(distribution, extra) for extra in names}


def _unmet(distribution: importlib.metadata.Distribution, extra: str) -> list[str]:
    """Returns the unmet requirements of an installed package, or of one of its extras."""
    unmet = []
    for requirement in map(Requirement, distribution.requires or ()):
        marker = requirement.marker
        of_extra = marker is not None and "extra" in str(marker)
        if of_extra != bool(extra) or not (marker is None or marker.evaluate({"extra": extra})):
            continue
        try:
            installed = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            unmet.append(f"{requirement.name}{requirement.specifier}")
            continue
        if not requirement.specifier.contains(installed.version, prereleases=True):
            unmet.append(f"{requirement.name}{requirement.specifier} (now {installed.version})")
        for inner in requirement.extras:
            unmet += _unmet(installed, inner)
    return unmet


def check_packages(extras: dict[str, list[str]]) -> Check:
    """Checks the packages that every run needs.

    Args:
        extras: from `requirements_by_extra`.
    """
    versions = []
    for name in ("tensorflow", "keras", "keras-cv"):
        try:
            versions.append(f"{name} {_version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} missing")
    text = ", ".join(versions)
    problem = ""
    if unmet := extras.get("", []):
        problem = f"packages are missing or of another version: {', '.join(unmet)}"
    elif importlib.util.find_spec("tensorflow") is None:
        problem = "TensorFlow isn't installed"
    elif extras and all(extras[extra] for extra in _TENSORFLOW):
        problem = f"TensorFlow has another version than byol_tf needs: {extras['cpu'][0]}"
    return Check("packages", text, problem, install_line(_best_extra()) if problem else "")


def _version(name: str) -> str:
    """Returns the version of a package, also where it is installed under one of its other names."""
    names = (name, *_OTHER_NAMES.get(name, ()))
    for candidate in names[:-1]:
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return importlib.metadata.version(names[-1])


def _best_extra() -> str:
    return "gpu" if nvidia_card() else "cpu"


def _reinstall_line(extra: str) -> str:
    """Returns the line that installs the packages of an extra anew, whatever is there."""
    try:
        required = importlib.metadata.distribution("byol-tf").requires or ()
    except importlib.metadata.PackageNotFoundError:
        return install_line(extra)
    packages = [
        f'"{requirement.name}{inner}{requirement.specifier}"'
        for requirement in map(Requirement, required)
        if requirement.marker is not None and "extra" in str(requirement.marker)
        if requirement.marker.evaluate({"extra": extra})
        for inner in [f"[{','.join(requirement.extras)}]" if requirement.extras else ""]
    ]
    return f"pip install --force-reinstall {' '.join(packages)}"


def check_extras(extras: dict[str, list[str]]) -> Check:
    """Lists which optional extras are installed, and the line that installs the others.

    Args:
        extras: from `requirements_by_extra`.
    """
    optional = [name for name in extras if name and name not in (*_TENSORFLOW, *_DEVELOPMENT)]
    missing = [name for name in optional if extras[name]]
    text = ", ".join(f"{name} {'missing' if name in missing else 'installed'}" for name in optional)
    hint = f"if needed: {install_line(*missing)}" if missing else ""
    return Check("extras", text or "unknown: byol_tf isn't installed as a package", hint=hint)


def _machine_checks() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    bfloat16 = cpu_bfloat16()
    support = f"bfloat16 ({bfloat16})" if bfloat16 else "no fast bfloat16"
    quota = _cgroup_cores()
    limited = f", limited to {quota:g} by the container" if quota else ""
    yield Check("CPU", f"{cores} cores{limited}, {support}")
    total, limit = psutil.virtual_memory().total, memory_limit()
    text = f"{free_memory() / 1e9:.1f} GB free of {total / 1e9:.1f}"
    if limit is not None and limit < total:
        text += f"; the container may use {limit / 1e9:.1f} GB"
    yield Check("memory", text)
    yield _check_disk()
    if os.path.isdir("/dev/shm"):
        yield Check("shared memory", f"{shutil.disk_usage('/dev/shm').free / 1e9:.1f} GB free")
    if any(name in os.environ for name in DESCRIPTIONS):
        yield check_workers(os.environ)


def check_workers(environment: Mapping[str, str]) -> Check:
    """Describes the workers that `devices.strategy=multi_worker` would have here.

    Args:
        environment: such as `os.environ`.
    """
    try:
        cluster = read_cluster(environment)
    except DeviceError as error:  # no problem for a run in this process alone
        return Check("workers", "can't be read", hint=str(error))
    own = f"this is number {cluster.index + 1}, {cluster.addresses[cluster.index]}"
    return Check("workers", f"{len(cluster.addresses)} of {cluster.origin}; {own}")


def _check_disk() -> Check:
    runs = Path("runs").absolute()
    existing = next(path for path in (runs, *runs.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    text = f"{free / 1e9:.1f} GB free for {runs}"
    try:
        check_writable(runs, "the folder of runs,")
    except OutputError as error:
        return Check("disk", text, str(error), "choose another: --set run.root=DIR")
    if free < _FREE_DISK:
        return Check("disk", text, "the disk is full", "choose another: --set run.root=DIR")
    return Check("disk", text)


def _cgroup_cores() -> float | None:
    """Returns the cores that the container may use; None without a limit."""
    try:
        text = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    quota, _, period = text.partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _tensorflow_checks() -> Iterator[Check]:
    prepare_environment()
    start = time.monotonic()
    try:
        with activity("starting TensorFlow"):
            import tensorflow as tf

            gpus = tf.config.list_physical_devices("GPU")
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        yield Check(
            "TensorFlow",
            "doesn't start",
            f"TensorFlow can't be imported: {lines[-1]}",
            _reinstall_line(_best_extra()),
        )
        return
    yield Check("TensorFlow", f"starts in {time.monotonic() - start:.1f} s")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        names = ", ".join(detail.get("device_name", "GPU") for detail in details)
        yield Check("devices", f"{names}, {'fast' if has_fast_bfloat16() else 'no fast'} bfloat16")
        if len(gpus) > 1 and os.path.isdir("/dev/shm"):
            yield from _check_shared_memory()
    elif nvidia_card():
        reason, hint = explain_unseen_gpu(tf.test.is_built_with_cuda())
        yield Check("devices", f"an NVIDIA GPU that TensorFlow doesn't see: {reason}", hint=hint)
    else:
        yield Check("devices", "CPU")
    yield _check_step()


def _check_shared_memory() -> Iterator[Check]:
    free = shutil.disk_usage("/dev/shm").free
    if free < _SHARED_MEMORY:
        hint = "with Docker: --shm-size=8g"
        yield Check(
            "several GPUs", f"may need more than {free / 1e6:.0f} MB of /dev/shm", hint=hint
        )


def explain_unseen_gpu(built_with_cuda: bool) -> tuple[str, str]:
    """Returns why TensorFlow may not see this machine's NVIDIA GPU, and what would mend it.

    Args:
        built_with_cuda: whether the installed TensorFlow was.
    """
    if not built_with_cuda or importlib.util.find_spec("nvidia") is None:
        return "TensorFlow for CPUs is installed", install_line("gpu")
    driver = _driver_version()
    if driver is None:
        return "its driver isn't loaded", "install NVIDIA's driver; with Docker: --gpus all"
    if int(driver.partition(".")[0]) < _DRIVER:
        return f"its driver is {driver}", f"install version {_DRIVER} or a later one"
    return f"its driver is {driver}", f"TensorFlow's reason is in {kept_native_log()}"


def _driver_version() -> str | None:
    try:
        words = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").split()
    except OSError:
        return None
    return next((word for word in words if word[:1].isdigit() and "." in word), None)


def _check_step() -> Check:
    """Compiles and runs one small step of training, with its input, on the device of a run."""
    import numpy as np

    from byol_tf.config.loading import load_config
    from byol_tf.devices import build_strategy
    from byol_tf.train.dry_run import measure_throughput
    from pipelines.sources.images import ArrayImages

    pixels = np.random.default_rng(0).integers(0, 256, (_IMAGES, 48, 48, 3), dtype=np.uint8)
    start = time.monotonic()
    try:
        with activity("compiling one step of training"):
            rates = measure_throughput(
                load_config("demo", []), ArrayImages(pixels), build_strategy("auto")
            )
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return Check("training step", "fails", f"a step of training fails here: {reason}")
    return Check(
        "training step",
        f"{rates.step:,.0f} images/s for a small network; compiled and timed in "
        f"{time.monotonic() - start:.0f} s",
    )
