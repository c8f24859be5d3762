"""`python -m benchmarks.remote_shards --photos DIR`: what shards on a server cost, and their order.

The photos of a folder are packed and read for some epochs from a web server on this machine that
counts requests, as training does and, as a run that began on a disk does, in any order. With
`--train EPOCHS` shards that are sorted by class are trained on in both orders; blocks are then so
small that 64 of them are as small a part of the photos as 4 MB each are of ImageNet.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.helpers.shard_files import Server, serving

_BATCH = 64
_LATENCY = 0.03
"""Seconds that a request waits, as for an object store in the same region."""
_EPOCHS = 3


def _pack(photos: str, out: Path, format: str, shard_bytes: int = 64 * 10**6) -> str:
    from pipelines.sources.shards.packing import Packing

    out.mkdir()
    packing = Packing(photos, "auto", format, shard_bytes)
    for shard in packing.shards:
        packing.write(shard, out / shard.name)
    return ",".join(shard.name for shard in packing.shards)


def _bytes_of(server: Server) -> tuple[int, int]:
    ranges = [part[6:].split("-") for _, _, part in server.requests if part]
    return len(ranges), sum(int(last) - int(first) + 1 for first, last in ranges)


def measure(photos: str, format: str, by_blocks: bool) -> dict:
    """Returns requests and bytes of an epoch."""
    from pipelines.batches import image_batches
    from pipelines.sources import open_source

    options = {"layout": "flat", "image_size": 64, "cache": "none"}
    options |= {"check": "headers", "on_lost": lambda *_: None}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "www") as server:
        names = _pack(photos, Path(folder) / "www", format)
        root = f"{server.url}/{{{names}}}"
        source = open_source("shards", root=root, **options)
        indexing = _bytes_of(server)
        manifest = replace(source.manifest, by_blocks=by_blocks)
        source = open_source("shards", root=root, **options, manifest=manifest)
        server.fault = lambda path: time.sleep(_LATENCY)
        images = source.pretrain
        batches, counts = iter(image_batches(images, _BATCH, 0)), []
        for _ in range(_EPOCHS + 1):
            for _ in range(len(images) // _BATCH):
                next(batches)
            counts.append(_bytes_of(server))
        # From the second epoch on as much is fetched ahead at the end as at the beginning.
        size = sum(file.stat().st_size for file in (Path(folder) / "www").iterdir())
        requests, received = (np.array(counts[-1]) - counts[0]) / _EPOCHS
    return {
        "benchmark": "remote_shards",
        "format": format,
        "by_blocks": by_blocks,
        "photos": len(images),
        "mb": round(size / 1e6, 1),
        "index_requests": indexing[0],
        "index_mb": round(indexing[1] / 1e6, 1),
        "blocks": 0 if images.blocks is None else len(np.unique(images.blocks.ids)),
        "requests_per_epoch": round(requests),
        "mb_per_epoch": round(received / 1e6, 1),
    }


def train(photos: str, epochs: int, seed: int, by_blocks: bool) -> dict:
    """Trains the demo's network on shards that are sorted by class; returns its accuracies."""
    from byol_tf.config.loading import load_config
    from byol_tf.train.experiment import Experiment
    from pipelines.sampling import Order
    from pipelines.sources.shards import fetching

    fetching.BLOCK_BYTES = 2**16
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "www") as server:
        www = Path(folder) / "www"
        names = _pack(photos, www, "tar")
        settings = [
            *("data.source=shards", "data.pretrain_images=null", "data.pretrain=train"),
            f"data.root={f'{server.url}/{{{names}}}' if by_blocks else www}",
            *("probe.train_images=2000", "probe.test_images=1000", "probe.supervised=false"),
            *(f"probe.every_epochs={epochs}", f"training.epochs={epochs}", f"seed={seed}"),
            "run.report=false",
        ]
        experiment = Experiment(load_config("demo", settings), Path(folder) / "run")
        result = experiment.run(verbose=False)
        images, labels = experiment.source.pretrain, experiment.source.train.labels
        batch = experiment.config.training.batch_size
        order = Order(len(images), batch, seed, blocks=images.blocks)
        mix = [np.bincount(labels[order.at(np.int64(step))[2]]) for step in range(100)]
    return {
        "benchmark": "remote_shards",
        "trained": "blocks" if by_blocks else "any order",
        "blocks": 0 if images.blocks is None else len(np.unique(images.blocks.ids)),
        "photos": len(images),
        "seed": seed,
        "photos_of_a_class_in_a_batch": f"{np.mean(mix):.1f} ± {np.std(mix):.1f}",
        **{key: result[key] for key in ("untrained_probe_accuracy", "probe_accuracy")},
        "knn_accuracy": result["knn_accuracy"],
    }


def main(arguments: list[str] | None = None) -> int:
    """Prints a line of JSON for each measurement; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote_shards", description=__doc__)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--train", type=int, metavar="EPOCHS")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if options.train is None:
        for format, by_blocks in (("tar", True), ("tar", False), ("parquet", True)):
            print(json.dumps(measure(options.photos, format, by_blocks)), flush=True)
        return 0
    for seed in range(options.seeds):
        for by_blocks in (True, False):
            print(json.dumps(train(options.photos, options.train, seed, by_blocks)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
