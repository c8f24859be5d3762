"""`python -m byol_tf.pack`: packs a folder of photos into shards."""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("pack")


import argparse
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from byol_tf.command_line import (
    add_json_option,
    add_path,
    check_writable,
    command_parser,
    command_text,
    ends_with_exit_code,
    os_error_text,
    print_json,
)
from byol_tf.devices import prepare_environment
from byol_tf.errors import OutputError
from byol_tf.logs import ProgressLog, counted, wrapped
from byol_tf.runs.files import read_text, temporary_path, write_atomically, write_csv
from pipelines.registry import MAX_CHANNELS
from pipelines.sources.folder.layout import LAYOUTS
from pipelines.sources.pixels import RGB, PixelFormat
from pipelines.sources.shards.packing import Packing, PlannedShard
from pipelines.sources.shards.writing import SUFFIXES

logger = logging.getLogger(__name__)

_STATE = "shards.json"
"""Which shards are complete, and of which photos: what the same command resumes from."""


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, 2 with a message if the photos or the output folder are wrong or the disk
        is full, 128 + n after signal n. Shards that were complete then are kept, and the same
        command resumes.
    """
    options = _parser().parse_args(arguments)
    try:
        facts = _run(options)
    except OSError as error:  # a full disk, say
        raise OutputError(
            f"--out {options.out}: can't be written: {os_error_text(error)}. The same command "
            "keeps the shards that are complete"
        ) from error
    print_json(facts, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "pack",
        description="Packs the photos below a folder into shards, byte for byte, for "
        "data.source=shards. Changes no photo.",
    )
    add_path(
        parser,
        "--images",
        "the folder of photos, as data.root of data.source=folder",
        required=True,
    )
    add_path(
        parser,
        "--out",
        "the folder for the shards: a new one, or that of this command when it was stopped",
        required=True,
    )
    parser.add_argument(
        "--format", choices=SUFFIXES, default="tar", help="of the shards; default: tar"
    )
    parser.add_argument(
        "--shard-size",
        metavar="MB",
        type=_megabytes,
        default=256,
        help="largest size of a shard's photos; default: 256",
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="auto",
        help="what subfolders are, as data.layout; default: auto",
    )
    parser.add_argument(
        "--channels",
        metavar="N",
        type=int,
        choices=range(1, MAX_CHANNELS + 1),
        help="pack images of so many channels, as data.channels, also TIFF stacks, DICOM and "
        ".npy; default: photos, which become RGB of 8 bits",
    )
    add_json_option(parser)
    return parser


def _megabytes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10**6:
        raise argparse.ArgumentTypeError(f"expected a whole number of megabytes; received {text}")
    return int(text)


def _run(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the command; returns the facts that it prints last."""
    out = Path(options.out)
    check_writable(out, "--out")
    # Headers are read, which any depth and range has in common.
    pixels = RGB if options.channels is None else PixelFormat(options.channels, depth=16)
    packing = Packing(
        options.images, options.layout, options.format, options.shard_size * 1_000_000, pixels
    )
    digest = _digest(packing, options)
    finished = _finished(out, digest)
    out.mkdir(parents=True, exist_ok=True)
    if options.format in ("tfrecord", "arrayrecord"):
        prepare_environment()  # TensorFlow writes them
    progress, done = ProgressLog(logger), 0
    total = sum(len(shard.paths) for shard in packing.shards)
    for shard in packing.shards:
        if shard.name not in finished:
            _save(out, digest, finished)  # before the first one too: the folder is this command's
            finished[shard.name] = _write(packing, shard, out)
        done += len(shard.paths)
        progress("packing", done, total)
    _save(out, digest, finished)
    skipped = dict(packing.skipped)
    for lost in finished.values():
        skipped |= lost
    write_csv(out / "skipped.csv", ("path", "reason"), sorted(skipped.items()))
    count = total - sum(map(len, finished.values()))
    _print_shards(out, packing, count, len(skipped), options.channels)
    return {
        "out": str(out),
        "photos": count,
        "shards": len(packing.shards),
        "skipped": len(skipped),
    }


def _save(out: Path, digest: str, finished: dict[str, dict[str, str]]) -> None:
    write_atomically(out / _STATE, json.dumps({"photos": digest, "shards": finished}, indent=1))


def _write(packing: Packing, shard: PlannedShard, out: Path) -> dict[str, str]:
    """Writes a shard completely or not at all; returns the reason for each photo that it lacks."""
    file = out / shard.name
    temporary = temporary_path(file)
    temporary.unlink(missing_ok=True)
    skipped = packing.write(shard, temporary)
    with temporary.open("rb+") as written:
        os.fsync(written.fileno())
    temporary.replace(file)
    return skipped


def _digest(packing: Packing, options: argparse.Namespace) -> str:
    """Returns a digest of what decides the shards' bytes."""
    facts = [options.format, options.shard_size, options.layout, options.channels, packing.state]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _finished(out: Path, digest: str) -> dict[str, dict[str, str]]:
    """Returns the shards that are complete, each with what it lacks. Raises OutputError."""
    try:
        state = json.loads(read_text(out / _STATE))
        if state["photos"] == digest:
            return {name: lost for name, lost in state["shards"].items() if (out / name).is_file()}
        reason = "has shards of other photos, or with other options"
    except FileNotFoundError:
        if not out.is_dir() or not any(
            name.is_file() for name in out.iterdir() if not name.name.startswith(".")
        ):
            return {}
        reason = "has other files"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"has a {_STATE} that can't be read ({error})"
    raise OutputError(f"--out: {out} {reason}; name a new folder")


def _print_shards(
    out: Path, packing: Packing, count: int, skipped: int, channels: int | None
) -> None:
    print()
    print(wrapped(f"{counted(count, 'photo')} below {packing.folder}"))
    for note in packing.notes:
        print(wrapped(note))
    names = [shard.name for shard in packing.shards]
    listed = f"{names[0]} to {names[-1]}" if names[1:] else names[0]
    print(wrapped(f"{out}   {counted(len(names), 'shard')}: {listed}"))
    if skipped:
        print(f"  {out / 'skipped.csv'}   {counted(skipped, 'file')} that they lack, and why")
    words = ["--config", "photos", "--set", "data.source=shards"]
    words += ["--set", f"data.root={out.absolute()}"]
    words += [] if channels is None else ["--set", f"data.channels={channels}"]
    print(f"\n  next:\n    {command_text('train', words)}\n")
