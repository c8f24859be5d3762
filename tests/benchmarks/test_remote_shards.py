"""The benchmark of remote shards counts fewer requests in blocks, and trains in both orders."""

import json

import pytest

from benchmarks.remote_shards import main
from tests.pipelines.sources.folder.test_source import tree


@pytest.mark.long
def test_both_orders_are_measured_and_trained_on(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("benchmarks.remote_shards._LATENCY", 0.0)
    photos = tree(tmp_path / "x", {f"{split}/{k}": 80 for split in ("train", "test") for k in "ab"})
    assert main(["--photos", str(photos)]) == 0
    assert main(["--photos", str(photos), "--train", "3", "--seeds", "1"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line[:1] == "{"]
    requests = [line["requests_per_epoch"] for line in lines[:3]]
    assert requests[0] <= requests[2] < requests[1]
    assert [line["trained"] for line in lines[3:]] == ["blocks", "any order"]
