"""The command `byol`: `byol NAME` and `python -m byol_tf.NAME` are the same.

Nothing that takes time is imported before the command is known, and then only that command.
"""

import importlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

COMMANDS = {
    "train": ("byol_tf.train.__main__", "pre-trains an encoder on images without labels"),
    "evaluate": ("byol_tf.evaluate.__main__", "evaluates an encoder on labelled images"),
    "embed": ("byol_tf.embed.__main__", "embeds photos, finds similar ones, predicts labels"),
    "predict": ("byol_tf.predict.__main__", "predicts classes of photos by a classifier"),
    "export": ("byol_tf.export.__main__", "writes an encoder as SavedModel, Keras, LiteRT or ONNX"),
    "report": ("byol_tf.report.__main__", "writes a page about a run"),
    "compare": ("byol_tf.compare", "shows runs side by side"),
    "pack": ("byol_tf.pack.__main__", "packs a folder of photos into shards"),
    "study": ("byol_tf.study.__main__", "runs a table of a paper"),
    "doctor": ("byol_tf.doctor", "checks whether a run would work on this machine"),
    "convert": ("byol_tf.convert.__main__", "converts encoders from other projects"),
}
"""Name of each command -> (module with its `main`, its line in `byol --help`)."""


def command(name: str | None = None) -> NoReturn:
    """Runs a command as a process.

    Args:
        name: of the command; by default the first argument of the process.
    """
    # Until the command handles signals itself, Ctrl-C would show where the imports had got to.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit_quietly)
    arguments = sys.argv[1:]
    if name is None:
        name, *arguments = arguments or [""]
        if name in ("-h", "--help", "--version"):
            _print_about(name)
            raise SystemExit(0)
        if name not in COMMANDS:
            print(_unknown(name), file=sys.stderr)
            raise SystemExit(2)
    try:
        main = importlib.import_module(COMMANDS[name][0]).main
        run_command = importlib.import_module("byol_tf.command_line").run_command
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "byol_tf", "pipelines"):
            raise
        from pipelines.extras import install_line

        print(f"byol: the package {error.name} is missing: {install_line()}", file=sys.stderr)
        raise SystemExit(2) from error
    run_command(main, arguments)
    raise AssertionError("run_command ends the process")


def _exit_quietly(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"\nstopped by SIGINT\n")
    os._exit(128 + number)


def _print_about(option: str) -> None:
    from byol_tf import __version__

    if option == "--version":
        print(f"byol_tf {__version__}")
        return
    print("usage: byol COMMAND ...\n\nSelf-supervised learning of images with BYOL.\n\ncommands:")
    for name, (_, summary) in COMMANDS.items():
        print(f"  {name:<10} {summary}")
    print("\nbyol COMMAND --help lists the options of one. byol --version prints the version.")


def _unknown(name: str) -> str:
    import difflib

    if not name:
        return f"byol: expected a command: {', '.join(COMMANDS)}. byol --help says what each does"
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(COMMANDS)}"
    return f"byol: {name}: unknown command; {hint}"


if __name__ == "__main__":
    command()
