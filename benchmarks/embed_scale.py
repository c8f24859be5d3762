"""`python -m benchmarks.embed_scale --embeddings DIR`: memory and time of a million embeddings.

They are made from those of photos, which `byol embed --out DIR` has stored, and noise; everything
else is the command's own code, without decoding and without TensorFlow. Each step is a process of
its own. One that stores is killed (SIGKILL) half-way and resumed, and its files are compared with
those of another that wasn't.

Memory is a process's largest anonymous memory: pages of a memory map, which the system takes back
when it needs them, aren't in it.
"""

import argparse
import filecmp
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

_BLOCK = 1_000  # embeddings that are made at once
_NEIGHBOURS = 8


class Images:
    """Stands in for a folder: photo number n is a pixel whose 24 bits are n."""

    def __init__(self, count: int) -> None:
        from pipelines.sources import Photos

        paths = [f"photos/{row // 1_000:04}/IMG_{row:07}.jpg" for row in range(count)]
        self.photos = Photos(paths, np.arange(count), np.arange(count) + 1_700_000_000_000_000_000)
        self.folder, self.skipped = Path("/photos"), {}

    def read_each(self, photos) -> Iterator[tuple[object, np.ndarray, str]]:
        for photo in photos:
            number = photo.bytes
            pixel = np.array([number & 255, number >> 8 & 255, number >> 16], np.uint8)
            yield photo, pixel.reshape(1, 1, 3), ""


class Model:
    """Stands in for an encoder: repeats the embeddings of the photos, with noise."""

    def __init__(self, embeddings: np.ndarray, noise: float, kill_at: int) -> None:
        self.embeddings, self.kill_at = embeddings, kill_at
        self.noise = (noise * embeddings.std(axis=0)).astype(np.float32)
        self.block = functools.lru_cache(2)(self._block)

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        rows = images.reshape(-1, 3).astype(np.int64) @ (1, 256, 65_536)
        if rows.max() >= self.kill_at:
            os.kill(os.getpid(), 9)
        return np.stack([self.block(row // _BLOCK)[row % _BLOCK] for row in rows.tolist()])

    def _block(self, number: int) -> np.ndarray:
        rows = np.arange(number * _BLOCK, (number + 1) * _BLOCK) % len(self.embeddings)
        noise = np.random.default_rng(number).standard_normal((_BLOCK, len(self.noise)), np.float32)
        return self.embeddings[rows] + self.noise * noise


def _timed(function: Callable[[], dict]) -> dict:
    start = time.perf_counter()
    facts = function()
    return {"s": round(time.perf_counter() - start, 1)} | facts


def _store(out: Path):
    from byol_tf.embed.store import Store

    return Store(out, "benchmark", Path("/photos"))


def _embed(options: argparse.Namespace) -> dict:
    from byol_tf.embed.photos import EmbeddedPhotos

    images = Images(options.count)
    source = np.load(options.embeddings / "embeddings.npy")
    model = Model(source, options.noise, options.kill_at)

    def embed() -> dict:
        store = _store(options.out)
        encoder = SimpleNamespace(load=lambda: model, path="benchmark")
        with store.locked():
            embedded = EmbeddedPhotos(images, encoder, store, {})
            embedded.embed_missing()
        return {"reused": embedded.reused, "shape": list(embedded.embeddings.shape)}

    return _timed(embed)


def _parquet(options: argparse.Namespace) -> dict:
    from byol_tf.embed.parquet import write_parquet

    store, photos = _store(options.out), Images(options.count).photos

    def write() -> dict:
        write_parquet(store, photos)
        return {"file MB": round(store.parquet.stat().st_size / 1e6)}

    return _timed(write)


def _exact(options: argparse.Namespace) -> dict:
    from byol_tf.evaluate.knn import nearest_neighbours

    embeddings = _store(options.out).load()
    queries = np.asarray(embeddings[:: len(embeddings) // options.queries][: options.queries])

    def search() -> dict:
        nearest_neighbours(queries, embeddings, _NEIGHBOURS)
        return {"queries": len(queries)}

    return _timed(search)


def _build(options: argparse.Namespace) -> dict:
    from byol_tf.embed.search_index import open_index

    store = _store(options.out)

    def build() -> dict:
        open_index(store)
        return {"file MB": round(store.search_index.stat().st_size / 1e6)}

    return _timed(build)


def _search(options: argparse.Namespace) -> dict:
    from byol_tf.embed.search_index import measure_recall, open_index, search

    store = _store(options.out)
    embeddings = store.load()
    index = open_index(store)
    queries = np.asarray(embeddings[:: len(embeddings) // 1_000][:1_000])

    def run() -> dict:
        start = time.perf_counter()
        search(index, queries, embeddings, _NEIGHBOURS + 1)
        return {"ms a query": round(1e3 * (time.perf_counter() - start) / len(queries), 2)}

    facts = _timed(run)
    return facts | {"recall": round(measure_recall(index, embeddings, _NEIGHBOURS), 4)}


def _list(options: argparse.Namespace) -> dict:
    return {"photos": len(Images(options.count).photos)}


_STEPS = {
    "list": _list,
    "embed": _embed,
    "parquet": _parquet,
    "exact": _exact,
    "build": _build,
    "search": _search,
}


def _run(options: argparse.Namespace, step: str, out: Path, label: str, **extra: int) -> None:
    words = [f"--{key.replace('_', '-')}={value}" for key, value in extra.items()]
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks.embed_scale", f"--step={step}", f"--out={out}"),
            *(f"--embeddings={options.embeddings}", f"--count={options.count}"),
            *(f"--noise={options.noise}", *words),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    peak = 0.0
    while child.poll() is None:  # in this process: threads of the child would wait for each other
        peak = max(peak, _anonymous_mb(child.pid))
        time.sleep(0.005)
    result = child.stdout.read().strip() or f"ended by signal {-child.returncode}"
    print(f"{label:<36}{peak:>6.0f} MB  {result}", flush=True)


def _anonymous_mb(process: int) -> float:
    """Anonymous memory of a process; 0 once it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0) / 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embeddings", type=Path, required=True, help="DIR of byol embed --out")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--noise", type=float, default=0.5, help="in standard deviations")
    parser.add_argument("--step", choices=_STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kill-at", type=int, default=2**24, help=argparse.SUPPRESS)
    parser.add_argument("--queries", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(_STEPS[options.step](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder) / "one", Path(folder) / "two"
        _run(options, "embed", one, "embed and store")
        _run(options, "embed", two, "the same, killed half-way", kill_at=options.count // 2)
        _run(options, "embed", two, "resumed")
        names = ["embeddings.npy", "index.csv", "about.json"]
        equal = filecmp.cmpfiles(one, two, names, shallow=False)[0] == names
        print(f"files of both equal to the bit: {'yes' if equal else 'no'}")
        _run(options, "embed", two, "again, all stored")
        _run(options, "parquet", one, "write Parquet")
        _run(options, "list", one, "the list of photos alone")
        _run(options, "exact", one, "exact search, 1 query")
        _run(options, "exact", one, "exact search, 100 queries", queries=100)
        _run(options, "build", one, "build the index")
        _run(options, "search", one, "search by the index, 1,000 queries")


if __name__ == "__main__":
    main()
