"""A process killed inside a save, or after a power cut, resumes from that save or the one before."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.waiting import HANG
from tests.reliability.saves import memory_folder

ROOT = Path(__file__).parents[2]


def killed(*words: str) -> dict:
    """Runs `tests.reliability.kills`; returns its result."""
    with memory_folder() as folder:
        mode, *rest = words
        line = [sys.executable, "-m", "tests.reliability.kills", mode, str(folder), *rest]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_sigkill_at_every_file_operation(report):
    result = killed("every")
    assert result["wrong"] == []
    kinds = result["operations"]
    assert set(kinds) == {"open", "write", "fsync", "mkdir", "rename", "unlink", "rmdir"}
    assert result["times"] == sum(kinds.values()) + kinds["write"] >= 100
    report(
        3,
        "SIGKILL before every file operation of a start and two saves, and in the middle of every "
        "write "
        f"({', '.join(f'{kinds[name]} {name}' for name in sorted(kinds))}): goes on from step k or "
        "k-1, "
        "at least 2 verified, no left-over, no torn load",
        result["times"],
    )


def test_sigkill_at_random_moments(report):
    result = killed("random", "50")
    assert result["wrong"] == []
    report(
        3,
        f"random SIGKILLs of processes that go on from one another ({result['saves']} saves)",
        result["times"],
    )


@pytest.mark.long
def test_sigkill_at_5000_random_moments(report):
    result = killed("random", "5000")
    assert result["wrong"] == []
    report(
        3, f"random SIGKILLs, as many as for a release ({result['saves']} saves)", result["times"]
    )


def test_power_cut_after_every_file_operation(report):
    """Power cuts on a simulated disk that loses all that wasn't synced."""
    result = killed("power")
    assert result["wrong"] == []
    report(
        3,
        "power cut after every file operation, what wasn't synced forgotten: as after a kill",
        result["times"],
    )


@pytest.mark.parametrize(
    ("mode", "protection", "defect"),
    [
        ("every", "rename", "damaged checkpoint, not used"),
        pytest.param("every", "hiding", r"half a checkpoint at \(3, 0\)", marks=pytest.mark.long),
        pytest.param("power", "file-sync", "half a checkpoint at", marks=pytest.mark.long),
        pytest.param("power", "folder-sync", "1 verified", marks=pytest.mark.long),
    ],
)
def test_missing_protection_shows_a_defect(mode, protection, defect):
    """Shows that the tests here can fail."""
    wrong = killed(mode, "--without", protection)["wrong"]
    assert any(re.search(defect, line) for line in wrong)


def test_intercepted_operations_are_the_system_calls(tmp_path):
    """Kills happen at calls of Python's functions; a write past them would go untested."""
    strace = "/usr/bin/strace"
    if not os.access(strace, os.X_OK):
        pytest.skip("strace isn't here")
    code = """
import json, sys
from pathlib import Path
from tests.reliability.kills import work
from tests.reliability.operations import Operations
from tests.reliability.saves import folder_with_left_overs
folder, kinds = folder_with_left_overs(Path(sys.argv[1])), {}
open("/proc/self/comm").close()  # marks the start in the list of calls
with Operations(folder, lambda _, operation: kinds.update({operation.name: kinds.get(operation.name, 0) + 1})):
    work(folder, lambda _: None)
print(json.dumps(kinds))
"""
    calls = "trace=open,openat,creat,write,pwrite64,writev,fsync,fdatasync,mkdir,rename,renameat,renameat2,unlink,unlinkat,rmdir,ftruncate"
    line = [
        strace,
        "-f",
        "-y",
        "-o",
        str(tmp_path / "calls"),
        "-e",
        calls,
        sys.executable,
        "-c",
        code,
        str(tmp_path / "folder"),
    ]
    done = subprocess.run(
        line,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    kinds = json.loads(done.stdout)
    after_begun = (tmp_path / "calls").read_text().split("/proc/self/comm", 1)[1]
    seen = [
        text
        for text in after_begun.splitlines()
        if str(tmp_path / "folder") in text and "resumed" not in text
    ]
    names = [re.search(r"(\w+)\(", text)[1] for text in seen]
    assert names.count("write") == kinds["write"]
    assert names.count("fsync") == kinds["fsync"]
    assert names.count("rename") == kinds["rename"]
    assert names.count("mkdir") == kinds["mkdir"]
    assert (
        names.count("unlink") + names.count("unlinkat") + names.count("rmdir")
        == kinds["unlink"] + kinds["rmdir"]
    )
    assert sum("O_CREAT" in text for text in seen) == 3 * 2  # three files of two saves
    assert not {"pwrite64", "writev", "fdatasync", "ftruncate", "creat"} & set(names)
