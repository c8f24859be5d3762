"""The scripts and manifests of docs/clusters.md, with stand-ins for the programs of a cluster."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from byol_tf import errors
from byol_tf.clusters import Cluster, read_cluster
from byol_tf.config.loading import load_config
from byol_tf.train.__main__ import _parser
from tests.docs.pages import ROOT, blocks
from tests.helpers.waiting import HANG

SLURM, KUBERNETES, VERTEX, _, SSH = blocks(ROOT / "docs" / "clusters.md")
AGAIN = {errors.LOST, 129, 143}
"""Exit codes after which the same command resumes the run."""


def run_script(script: str, folder: Path, **programs: str) -> int:
    """Runs a script of bash in a folder, with stand-ins; returns its exit code."""
    for name, text in programs.items():
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
    }
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, timeout=HANG)
    return done.returncode


def check_command(words: list[str]) -> None:
    """Fails the test unless a command trains with several workers in a named run folder."""
    assert words[0] == "train"
    options = _parser().parse_args(words[1:])
    assert options.run_dir
    assert load_config(options.config, options.overrides).devices.strategy == "multi_worker"


@pytest.mark.parametrize("code", [0, 1, 2, 11, 75, 129, 137, 143])
def test_slurm_job_is_requeued_when_the_run_can_be_resumed(code, tmp_path):
    programs = {
        "srun": f'printf "%s\\n" "$@" > arguments; exit {code}',
        "scontrol": "echo $* > requeued",
    }
    assert run_script(SLURM.text, tmp_path, **programs) == code
    words = (tmp_path / "arguments").read_text().splitlines()
    assert words[:2] == ["--kill-on-bad-exit=0", "byol"]
    check_command(words[2:])
    requeued = tmp_path / "requeued"
    assert (requeued.read_text() if requeued.exists() else None) == (
        "requeue 4711\n" if code in AGAIN else None
    )


def test_pods_of_kubernetes_read_a_cluster_of_their_addresses():
    service, job = yaml.safe_load_all(KUBERNETES.text)
    name, spec = job["metadata"]["name"], job["spec"]
    pod = spec["template"]["spec"]
    assert service["spec"] == {"clusterIP": "None", "selector": {"job-name": name}}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert spec["parallelism"] == spec["completions"]
    (container,) = pod["containers"]
    check_command(container["args"])
    index, tf_config = container["env"]
    addresses = tuple(f"{name}-{i}.{pod['subdomain']}:2222" for i in range(spec["completions"]))
    for i in range(spec["completions"]):
        text = tf_config["value"].replace(f"$({index['name']})", str(i))
        assert read_cluster({tf_config["name"]: text}) == Cluster(addresses, i, "TF_CONFIG")


def test_job_of_kubernetes_fails_at_exit_codes_that_would_come_again():
    _, job = yaml.safe_load_all(KUBERNETES.text)
    fail, ignore = job["spec"]["podFailurePolicy"]["rules"]
    numbers = {value for value in vars(errors).values() if type(value) is int}
    assert set(fail["onExitCodes"]["values"]) == numbers - AGAIN | {1, 2}
    assert (fail["action"], ignore["action"]) == ("FailJob", "Ignore")


def test_pools_of_vertex_are_one_chief_and_others_with_the_same_command():
    chief, others = yaml.safe_load(VERTEX.text)["workerPoolSpecs"]
    assert chief | {"replicaCount": others["replicaCount"]} == others
    assert chief["replicaCount"] == 1
    check_command(chief["containerSpec"]["args"])


def test_loop_over_ssh_gives_each_host_its_place(tmp_path):
    code = run_script(
        SSH.text,
        tmp_path,
        ssh='[ "$1 $2" = "-n -tt" ] || exit 9; export HOST="$3"; bash -c "$4"',
        byol='printf "%s\\n" "$TF_CONFIG" "$@" > "$HOST"',
    )
    assert code == 0
    addresses = ("10.0.0.1:2222", "10.0.0.2:2222")
    for index, address in enumerate(addresses):
        text, *words = (tmp_path / address.partition(":")[0]).read_text().splitlines()
        assert json.loads(text)
        assert read_cluster({"TF_CONFIG": text}) == Cluster(addresses, index, "TF_CONFIG")
        check_command(words)
