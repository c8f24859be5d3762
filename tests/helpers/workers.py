"""Worker processes of one run on this machine."""

import json
import os
import socket
import subprocess
from pathlib import Path

from tests.helpers.handlers import reset_handlers
from tests.helpers.waiting import HANG

ROOT = Path(__file__).parents[2]


def free_addresses(count: int) -> list[str]:
    """Returns addresses on loopback whose ports are free."""
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:  # all before any is closed, or two might get the same port
        opened.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{opened.getsockname()[1]}" for opened in sockets]
    for opened in sockets:
        opened.close()
    return addresses


def start_worker(command: list[str], addresses: list[str], index: int) -> subprocess.Popen:
    """Starts a command as one worker of a cluster, on the CPU, with its output in pipes."""
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"TF_CONFIG": json.dumps(task), "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=reset_handlers,
    )


def run_workers(*commands: list[str]) -> list[subprocess.CompletedProcess]:
    """Runs a command on each worker of a cluster, to the end; returns what they printed."""
    addresses = free_addresses(len(commands))
    processes = [start_worker(command, addresses, index) for index, command in enumerate(commands)]
    try:
        outputs = [process.communicate(timeout=HANG) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]
