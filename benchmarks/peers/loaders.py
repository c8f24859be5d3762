"""webdataset on tar files and Hugging Face's datasets on Parquet files, each with its own loader,
shuffled, with a worker for each core."""

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch


def webdataset_batches(root, batch, cache):
    import webdataset

    shards = sorted(map(str, Path(root).glob("*.tar")))
    images = (
        webdataset.WebDataset(shards, shardshuffle=100, seed=0)
        .shuffle(1_000)
        .decode("rgb8")
        .to_tuple("jpg")
        .batched(batch, partial=False)
    )
    workers = min(os.cpu_count(), len(shards))
    return webdataset.WebLoader(images, batch_size=None, num_workers=workers), workers


def datasets_batches(root, batch, cache):
    import datasets

    files = sorted(map(str, Path(root).glob("*.parquet")))
    images = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    loader = torch.utils.data.DataLoader(
        images.select_columns(["image"]),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=os.cpu_count(),
        collate_fn=lambda rows: np.stack([np.asarray(row["image"]) for row in rows]),
    )
    return loader, os.cpu_count()


def measure(kind, root, cache, batch, seconds):
    began = time.perf_counter()
    make = {"webdataset": webdataset_batches, "datasets": datasets_batches}[kind]
    loader, workers = make(root, batch, cache)

    def endless():
        while True:
            yield from loader

    batches = endless()
    next(batches)
    first = time.perf_counter() - began
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        next(batches)
        count += batch
    rate = count / (time.perf_counter() - began)
    batches.close()
    # Kilobytes; what the processes share is counted in each.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "first_batch_s": round(first, 2),
        "images_per_s": round(rate),
        "peak_gb": round((own + workers * worker) / 1e6, 2),
    }


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
