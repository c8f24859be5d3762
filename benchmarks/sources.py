"""`python -m benchmarks.sources`: photos as a folder and as shards.

Time to the first batch at the first start and at a later one, at step 10,000 as after a resume,
images a second of the input alone, and peak memory: JPEGs of 96 px, decoded in each epoch. With
`--peer` beside webdataset on the same tar files and Hugging Face's datasets on the same Parquet
files, each with its own loader. Each measurement is a process of its own; they take turns.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.memory import write_photos
from benchmarks.peers import peer_python
from benchmarks.turns import in_process

FORMATS = ("tar", "tfrecord", "arrayrecord", "parquet")
PEERS = {"webdataset": "tar", "datasets": "parquet"}
"""Peer -> the format of ours whose files it reads."""
_BATCH = 64
_RESUMED_STEP = 10_000


def _measure(source: str, root: str, scans: str, step: int, seconds: float) -> dict:
    """Opens a source as a run does, and reads batches for so long."""
    from byol_tf.devices import prepare_environment

    prepare_environment()
    from pipelines.batches import image_batches
    from pipelines.sources import open_source

    began = time.perf_counter()
    opened = open_source(
        source,
        root=root,
        image_size=96,
        cache="none",
        check="headers",
        on_lost=print,
        scan_folder=scans,
    )
    opened.save_scan()
    batches = iter(image_batches(opened.pretrain, _BATCH, seed=0, first_step=step))
    next(batches)
    first = time.perf_counter() - began
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        next(batches)
        count += _BATCH
    return {
        "first_batch_s": round(first, 2),
        "images_per_s": round(count / (time.perf_counter() - began)),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def measure(images: int, seconds: float, rounds: int, peer: bool) -> dict:
    """Returns what each side measured: the first start, then of each round a later one."""
    result: dict = {"benchmark": "sources", "images": images, "batch": _BATCH}
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "folder"
        photos.mkdir()
        write_photos(photos, images)
        roots = {"folder": photos}
        for name in FORMATS:
            roots[name] = Path(folder) / name
            words = ["--images", photos, "--out", roots[name], "--format", name]
            began = time.perf_counter()
            in_process("byol_tf.pack", *words, "--shard-size", 64, "--json")
            result[name] = {"pack_s": round(time.perf_counter() - began, 1)}

        def start(name: str, step: int = 0) -> dict:
            if name in PEERS:
                settings = {
                    "kind": name,
                    "root": str(roots[PEERS[name]]),
                    "cache": str(Path(folder) / "cache"),
                    "batch": _BATCH,
                    "seconds": seconds,
                }
                return in_process(
                    "benchmarks.peers.loaders", json.dumps(settings), python=peer_python()
                )
            scans = Path(folder) / f"scans-{name}"
            scans.mkdir(exist_ok=True)
            source = "folder" if name == "folder" else "shards"
            words = [source, roots[name], scans, step, seconds]
            return in_process("benchmarks.sources", "--of", *words)

        sides = [*roots, *(PEERS if peer else ())]
        for name in sides:
            result[name] = result.get(name, {}) | {"first_start": start(name), "later": []}
        for _ in range(rounds):
            for name in sides:
                result[name]["later"].append(start(name))
        for name in roots:  # the peers can't begin anywhere
            result[name]["resume_first_batch_s"] = start(name, _RESUMED_STEP)["first_batch_s"]
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sources", description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of reading in each process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peer", action="store_true", help="beside webdataset and datasets (make peers)"
    )
    parser.add_argument(
        "--of",
        nargs=5,
        metavar=("SOURCE", "ROOT", "SCANS", "STEP", "SECONDS"),
        help="what the processes that are measured are called with",
    )
    options = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if options.of:
        source, root, scans, step, seconds = options.of
        print(json.dumps(_measure(source, root, scans, int(step), float(seconds))))
    else:
        print(json.dumps(measure(options.images, options.seconds, options.rounds, options.peer)))


if __name__ == "__main__":
    main()
