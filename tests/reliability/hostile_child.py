"""Loads hostile files under an audit hook: `python -m tests.reliability.hostile_child FOLDER CONTROLS`.

Each file in `FOLDER/hostile` is loaded as `evaluate` loads it, and `.keras` files also as
`encoder.weights` does. For each a line of JSON is printed: its name, the error message, and every
event that a file from elsewhere must not cause, and the megabytes by which the process grew.
Then each pickle in CONTROLS is loaded, which causes
such an event, and the observed events are printed.
"""

import contextlib
import json
import os
import pickle
import resource
import sys
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

from byol_tf.config.loading import load_config
from byol_tf.errors import ConfigError, ProtocolError
from byol_tf.models.from_config import build_config_encoder
from byol_tf.runs.encoders import load_encoder_file, load_run_encoder
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.starting_weights import starting_weights

_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.",
    "socket.",
    "ctypes.",
    "pickle.",
    "code.__new__",
)
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "shutil.",
)


class Watch:
    """Collects events while `active`.

    Reading is allowed in the folder under test, in Python's own folders and in /proc and /sys,
    and everything in the folder for temporary files, which is empty but for ours. Imports are observed by a finder of modules, as `importlib.import_module`, which Keras calls,
    raises no audit event.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.active, self.events = folder, False, []
        sys.addaudithook(self.hook)
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if self.active and name.startswith("evil"):
            self.events.append(f"import {name}")

    def hook(self, event: str, arguments: tuple) -> None:
        if not self.active:
            return
        if event == "open" and not isinstance(arguments[0], int):
            path, mode, flags = (
                os.path.realpath(os.fsdecode(arguments[0])),
                arguments[1] or "",
                arguments[2] or 0,
            )
            writes = any(char in mode for char in "wax+") or flags & (
                os.O_WRONLY | os.O_RDWR | os.O_CREAT
            )
            allowed = path.startswith(
                (str(self.folder), sys.prefix, sys.base_prefix, os.getcwd(), "/proc/", "/sys/")
            )
            if path.startswith(tempfile.gettempdir()):
                return
            if (writes and path != os.devnull) or not allowed:
                self.events.append(f"open {path} {mode}")
        elif event.startswith(_CHANGES):
            if not changed_path(event, arguments).startswith(tempfile.gettempdir()):
                self.events.append(f"{event} {arguments!r:.200}")
        elif event.startswith(_FORBIDDEN):
            self.events.append(f"{event} {arguments!r:.200}")


def changed_path(event: str, arguments: tuple) -> str:
    """Returns the path that an event of `_CHANGES` changes."""
    name, descriptor = arguments[1 if event == "os.symlink" else 0], arguments[-1]
    has_descriptor = isinstance(descriptor, int) and descriptor >= 0
    folder = os.readlink(f"/proc/self/fd/{descriptor}") if has_descriptor else os.getcwd()
    return os.path.join(folder, os.fsdecode(name))


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def load(case: Path) -> None:
    if (case / "config.json").is_file():
        load_run_encoder(load_config(case / "config.json"), RunFolder(case))
    else:
        load_encoder_file(case)


def main() -> None:
    folder = Path(sys.argv[1])
    # The first load imports modules.
    load(folder / "good.keras")
    load(folder / "good")
    config = load_config("demo", ["encoder.width=0.25"])
    encoder, watch = build_config_encoder(config), Watch(folder)
    cases = sorted((folder / "hostile").iterdir())
    loads = [(case.name, load, case) for case in cases]
    loads += [
        (
            f"{case.name} as encoder.weights",
            lambda case: starting_weights(str(case), encoder, config),
            case,
        )
        for case in cases
        if case.suffix == ".keras"
    ]
    for name, loading, case in loads:
        watch.events, message, before = [], None, peak_megabytes()
        watch.active = True
        try:
            loading(case)
        except (ProtocolError, ConfigError) as error:
            message = str(error)
        finally:
            watch.active = False
        answer = {"name": name, "refused": message, "events": watch.events}
        print(json.dumps(answer | {"megabytes": peak_megabytes() - before}), flush=True)
    for control in sorted(Path(sys.argv[2]).iterdir()):
        watch.events, watch.active = [], True
        with contextlib.suppress(ImportError):
            pickle.loads(control.read_bytes())
        watch.active = False
        print(json.dumps({"control": control.name, "events": watch.events}), flush=True)


if __name__ == "__main__":
    main()
