"""`python -m tests.reliability.hostile_child FOLDER DEEDS`: loads each hostile file below a folder
as `evaluate` does, under an audit hook; `.keras` files also as `encoder.weights` does.

Prints a line of JSON for each: name, what refused it and the text, and every event that a file from
elsewhere must not cause. Then it unpickles each file of another folder, which does such a thing,
and prints what was seen of it.
"""

import contextlib
import json
import os
import pickle
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

from byol_tf.config.loading import load_config
from byol_tf.errors import ConfigError, ProtocolError
from byol_tf.models.from_config import build_config_encoder
from byol_tf.runs.encoders import load_encoder_file, load_run_encoder, starting_weights
from byol_tf.runs.folder import RunFolder

_NEVER = (
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
    """Collects events. Reading is allowed below the folder under test, and of what belongs to
    Python and the system's own facts.

    Imports are seen as a finder of modules: of `importlib.import_module`, which Keras calls, an
    audit hook isn't told.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.on, self.seen = folder, False, []
        sys.addaudithook(self.hook)
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if self.on and name.startswith("evil"):
            self.seen.append(f"import {name}")

    def hook(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event == "open" and not isinstance(arguments[0], int):
            path, mode, flags = (
                os.path.realpath(os.fsdecode(arguments[0])),
                arguments[1] or "",
                arguments[2] or 0,
            )
            writes = any(sign in mode for sign in "wax+") or flags & (
                os.O_WRONLY | os.O_RDWR | os.O_CREAT
            )
            ours = path.startswith(
                (str(self.folder), sys.prefix, sys.base_prefix, os.getcwd(), "/proc/", "/sys/")
            )
            if (writes and path != os.devnull) or not ours:
                self.seen.append(f"open {path} {mode}")
        elif event.startswith((*_NEVER, *_CHANGES)):
            self.seen.append(f"{event} {arguments!r:.200}")


def load(case: Path) -> None:
    if (case / "config.json").is_file():
        load_run_encoder(load_config(case / "config.json"), RunFolder(case))
    else:
        load_encoder_file(case)


def main() -> None:
    folder = Path(sys.argv[1])
    load(folder / "good.keras")  # what is imported at the first load
    load(folder / "good")
    config = load_config("demo", ["encoder.width=0.25"])
    encoder, watch = build_config_encoder(config), Watch(folder)
    cases = sorted((folder / "hostile").iterdir())
    loads = [(case.name, load, case) for case in cases]
    loads += [
        (
            f"{case.name} as encoder.weights",
            lambda case: starting_weights(str(case), encoder, config.views),
            case,
        )
        for case in cases
        if case.suffix == ".keras"
    ]
    for name, loading, case in loads:
        watch.seen, text = [], None
        watch.on = True
        try:
            loading(case)
        except (ProtocolError, ConfigError) as error:
            text = str(error)
        finally:
            watch.on = False
        print(json.dumps({"name": name, "refused": text, "events": watch.seen}), flush=True)
    for deed in sorted(Path(sys.argv[2]).iterdir()):
        watch.seen, watch.on = [], True
        with contextlib.suppress(ImportError):
            pickle.loads(deed.read_bytes())
        watch.on = False
        print(json.dumps({"deed": deed.name, "events": watch.seen}), flush=True)


if __name__ == "__main__":
    main()
