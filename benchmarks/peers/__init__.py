"""Other libraries' ways to do the same, each in a process of its own and an environment of its own
(`make peers`).

What stands beside this file runs there: it imports neither TensorFlow nor byol_tf.
"""

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PYTHON = _ROOT / ".venv-peers" / "bin" / "python"


def peer_python() -> Path:
    """Returns the Python of the peers' environment; exits if it isn't there."""
    if not _PYTHON.exists():
        sys.exit(
            f"--peer: expected the peers' environment in {_PYTHON.parents[1]}; make it with: "
            "make peers"
        )
    return _PYTHON


def compile_modes() -> tuple[str, ...]:
    """Returns the modes of `torch.compile` to measure: none without a C++ compiler, which Inductor
    needs on a CPU."""
    if shutil.which("g++") or shutil.which("clang++") or os.environ.get("CXX"):
        return "default", "max-autotune"
    print(
        "--peer: torch.compile isn't measured, as there is neither g++ nor clang++", file=sys.stderr
    )
    return ()


class Peer:
    """A side of a benchmark that runs in the peers' environment.

    Between its turns it is stopped, so that workers which make batches ahead take no time of
    another side.

    Args:
        module: which of `benchmarks.peers`.
        **settings: what it is to do, as JSON can hold it.

    Raises:
        SystemExit: if the environment isn't there.
    """

    def __init__(self, module: str, **settings):
        command = [peer_python(), "-m", f"benchmarks.peers.{module}", json.dumps(settings)]
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        atexit.register(self._signal, signal.SIGKILL)
        self.versions: dict[str, str] = self._answer()

    def __call__(self, units: int) -> float:
        self._signal(signal.SIGCONT)
        print(units, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            sys.exit(
                f"--peer: {self._process.args[2]} ended with exit code {self._process.wait()}; "
                "what it said is above"
            )
        self._signal(signal.SIGSTOP)
        return json.loads(line)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def serve(start) -> None:
    """The other end: `start(**settings)` gives (a side, names of the packages it stands on);
    answers go to standard output."""
    from importlib.metadata import version

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print isn't an answer
    side, packages = start(**json.loads(sys.argv[1]))
    print(json.dumps({package: version(package) for package in packages}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(side(int(line))), file=answers, flush=True)
