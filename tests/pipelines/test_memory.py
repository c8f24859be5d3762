"""Free memory of machine, container and job: control groups of both versions."""

from pathlib import Path

import psutil
import pytest

from pipelines import memory
from pipelines.sources import plan_source
from tests.pipelines.sources.folder.test_source import tree


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes the files of control groups; the machine has 2,000 bytes free."""
    monkeypatch.setattr(memory, "_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_OWN", tmp_path / "own")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 2_000}))

    def write(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            file: Path = tmp_path / "cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")

    return write


def test_container_of_version_2(groups):
    groups(
        "0::/\n",
        {
            "memory.max": "500",
            "memory.current": "400",
            "memory.stat": "anon 250\nfile 150\nshmem 30\nactive_file 20\ninactive_file 100",
        },
    )
    assert (memory.free_memory(), memory.memory_limit()) == (220, 500)


def test_job_of_slurm_is_limited_by_a_group_above_its_own(groups):
    groups(
        "0::/system.slice/slurmstepd.scope/job_7/step_0\n",
        {
            "system.slice/slurmstepd.scope/job_7/memory.max": "600",
            "system.slice/slurmstepd.scope/job_7/memory.current": "100",
            "system.slice/slurmstepd.scope/job_7/step_0/memory.max": "max",
            "system.slice/slurmstepd.scope/job_7/step_0/memory.current": "90",
        },
    )
    assert (memory.free_memory(), memory.memory_limit()) == (500, 600)


def test_container_of_version_1_whose_path_is_the_hosts(groups):
    groups(
        "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/docker/1\n",
        {
            "memory/memory.limit_in_bytes": "500",
            "memory/memory.usage_in_bytes": "450",
            "memory/memory.stat": "total_active_file 10\ntotal_inactive_file 40",
        },
    )
    assert (memory.free_memory(), memory.memory_limit()) == (100, 500)


def test_group_that_uses_all_of_its_memory_leaves_nothing(groups):
    groups("0::/a\n", {"a/memory.max": "500", "a/memory.current": "510"})
    assert memory.free_memory() == 0


@pytest.mark.parametrize("own", ["0::/\n", "4:memory:/\n", ""])
def test_without_a_limit_the_machine_decides(groups, own):
    groups(own, {"memory.max": "max", "memory/memory.limit_in_bytes": "9223372036854771712"})
    assert (memory.free_memory(), memory.memory_limit()) == (2_000, None)


def test_system_without_control_groups(groups):
    assert (memory.free_memory(), memory.memory_limit()) == (2_000, None)


def test_images_are_cached_in_half_of_what_the_container_has_free(groups, tmp_path):
    root = tree(tmp_path / "photos", {"": 4})
    needed = 4 * 8 * 8 * 3

    def is_cached(free: int) -> bool:
        groups("0::/\n", {"memory.max": str(free), "memory.current": "0"})
        return plan_source("folder", root=str(root), image_size=8).in_memory

    assert is_cached(2 * needed)
    assert not is_cached(2 * needed - 1)
