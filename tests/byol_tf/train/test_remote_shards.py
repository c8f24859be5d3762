"""A run on shards behind a web server that goes away and comes back."""

import hashlib
import json

import numpy as np
import pytest

from byol_tf.config.loading import load_config
from byol_tf.errors import ImagesLost
from byol_tf.train.experiment import Experiment
from pipelines.sources import remote
from tests.helpers.shard_files import jpeg, serving, tar

CONFIG = {
    "name": "tiny",
    "views": {"size": 32},
    "encoder": {"name": "convnet", "width": 0.25},
    "projector": {"hidden_size": 16, "output_size": 8},
    "predictor": {"hidden_size": 16},
    "optimizer": {"base_learning_rate": 0.01},
    "training": {"epochs": 3, "batch_size": 8},
    "run": {"report": False},
    "devices": {"strategy": "cpu"},
}


def weights(experiment: Experiment) -> str:
    digest = hashlib.sha256()
    for array in experiment.model.get_weights():
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@pytest.mark.long
def test_run_resumes_exactly_after_an_outage(tmp_path, monkeypatch):
    www = tmp_path / "www"
    www.mkdir()
    for shard in range(3):
        images = {f"{n}.jpg": jpeg(n, size=(40, 40)) for n in range(shard * 16, shard * 16 + 16)}
        (www / f"photos-{shard}.tar").write_bytes(tar(images))
    with serving(www) as server:

        def experiment(name: str) -> Experiment:
            data = {
                "source": "shards",
                "root": f"{server.url}/photos-{{0..2}}.tar",
                "cache": "none",
            }
            (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"data": data}))
            return Experiment(load_config(tmp_path / "config.json"), tmp_path / name)

        whole = experiment("whole")
        whole.run(verbose=False)
        broken = experiment("broken")
        monkeypatch.setattr(remote, "GIVE_UP_SECONDS", 1.0)
        server.requests.clear()
        server.fault = lambda path: 503 if (tmp_path / "broken/checkpoints").is_dir() else None
        with pytest.raises(ImagesLost, match=r"photos-\d.tar can't be read.*: 503") as stopped:
            broken.run(verbose=False)
        assert "larger fraction" not in str(stopped.value)  # no photo is lost
        assert not (tmp_path / "broken" / "skipped.csv").exists()
        server.fault = lambda path: None
        resumed = experiment("broken")
        resumed.run(verbose=False)
    assert weights(resumed) == weights(whole)
