"""`benchmarks.embed_scale` prints what each of its steps found."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.waiting import HANG

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_store_is_resumed_and_searched(tmp_path):
    rows = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)
    np.save(tmp_path / "embeddings.npy", rows)
    command = [sys.executable, "-m", "benchmarks.embed_scale", f"--embeddings={tmp_path}"]
    done = subprocess.run(
        [*command, "--count=80000"],
        cwd=ROOT,
        timeout=HANG,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert "files of both equal to the bit: yes" in lines
    assert sum("ended by signal 9" in line for line in lines) == 1
    facts = {
        line.split("  ")[0]: json.loads(line[line.index("{") :]) for line in lines if "{" in line
    }
    assert 0 < facts["resumed"]["reused"] <= 40_000
    assert facts["again, all stored"]["reused"] == 80_000
    assert facts["search by the index, 1,000 queries"]["recall"] > 0.9
