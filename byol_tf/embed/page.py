"""A page that shows photos: their map, the nearest of each, and filters. One file, no network."""

import base64
import hashlib
import io
import json
import logging
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from byol_tf.embed.photos import EmbeddedPhotos
from byol_tf.embed.vectors import normalized
from byol_tf.logs import ProgressLog, activity, counted
from byol_tf.runs.files import write_atomically
from pipelines.sources import false_color

MAX_PHOTOS = 2_500
"""Most photos on a page, of some 6 KB each."""
_THUMBNAIL, _QUALITY = 128, 75
_DIMENSIONS = 128
"""Dimensions of the embeddings on the page. Of 2,000 photos, 94% of the nearest twelve were right;
with 32 dimensions 64%."""
_MAP_DIMENSIONS = 32
_MAP_ITERATIONS = 500

logger = logging.getLogger(__name__)


def write_page(path: Path, embedded: EmbeddedPhotos, columns: Mapping[str, Sequence[str]]) -> int:
    """Writes the page. Of more than `MAX_PHOTOS` photos it has random ones.

    Nearest photos are searched in the page, among embeddings that are reduced by PCA to at most 128
    numbers of 8 bits.

    Args:
        path: of the HTML file.
        embedded: the photos.
        columns: what to filter by and to colour the map by: from a name to a text for each photo,
            empty where there is none.

    Returns:
        The number of photos on the page.
    """
    rows, pictures = _thumbnails(embedded)
    mean, coordinates = _principal(normalized(embedded.embeddings[rows]))
    largest = np.abs(coordinates).max(axis=0)
    scales = np.where(largest > 0, largest, 1) / 127
    data = {
        "names": [embedded.photos[row].name for row in rows],
        "pictures": pictures,
        "columns": {name: _column([texts[row] for row in rows]) for name, texts in columns.items()},
        "points": _base64(_map(coordinates)),
        "vectors": _base64(np.rint(coordinates / scales).astype(np.int8)),
        "scales": scales.tolist(),
        "mean": mean[1].tolist(),
        "meanSquare": float(mean[0]),
    }
    total = len(embedded.photos)
    summary = counted(total, "photo")
    if len(rows) < total:
        summary += f", of which {len(rows):,} are on this page"
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    script = template.rpartition("<script>")[2].partition("</script>")[0]
    values = {
        "HASH": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "TITLE": escape(f"Photos of {embedded.images.name}"),
        "SUMMARY": escape(summary),
        # No name of a file ends the element that the data is in.
        "DATA": json.dumps(data).replace("<", "\\u003c"),
    }
    # All at once: what is filled in isn't searched again.
    write_atomically(path, re.sub("@([A-Z]+)@", lambda mark: values[mark[1]], template))
    return len(rows)


def _thumbnails(embedded: EmbeddedPhotos) -> tuple[np.ndarray, list[str]]:
    """The rows of the photos on the page, ascending, and their pictures as JPEG in base64."""
    rows = np.arange(len(embedded.photos))
    if len(rows) > MAX_PHOTOS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_PHOTOS, replace=False))
    readable, pictures = [], []
    progress = ProgressLog(logger)
    photos = embedded.photos.take(rows)
    for row, (_, pixels, _) in zip(rows, embedded.images.read_each(photos), strict=True):
        if pixels is not None:
            image, file = Image.fromarray(false_color(pixels)), io.BytesIO()
            image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
            image.save(file, "JPEG", quality=_QUALITY, optimize=True)
            readable.append(row)
            pictures.append(base64.b64encode(file.getvalue()).decode())
        progress("drawing the page", len(pictures), len(rows))
    return np.array(readable, np.int64), pictures


def _principal(vectors: np.ndarray) -> tuple[tuple[float, np.ndarray], np.ndarray]:
    """Reduces vectors by PCA.

    A vector is nearly the mean plus its coordinates in the principal directions, so that with `s`
    and `m` the product of two vectors is nearly s + m · a + m · b + a · b of their coordinates.

    Returns:
        `((s, m), coordinates)`: the mean's square, the mean's part in each direction `[k]`, and
        float32 `[n, k]`.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    _, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    directions = directions[:, ::-1][:, :_DIMENSIONS]
    coordinates = (centred @ directions).astype(np.float32)
    return (mean @ mean, mean @ directions), coordinates


def _map(coordinates: np.ndarray) -> np.ndarray:
    """Maps photos to the plane by t-SNE: uint16 `[n, 2]`."""
    points = np.zeros((len(coordinates), 2), np.float32)
    points[:, : coordinates.shape[1]] = coordinates[:, :2]
    if len(points) > 5:
        start = 1e-4 * points / max(float(points[:, 0].std()), 1e-12)
        method = TSNE(
            2,
            perplexity=min(30.0, (len(points) - 1) / 3),
            init=start,
            random_state=0,
            max_iter=_MAP_ITERATIONS,
        )
        # More threads wait for each other longer than they compute.
        with threadpool_limits(1), activity("drawing the map"):
            points = method.fit_transform(coordinates[:, :_MAP_DIMENSIONS])
    low, high = points.min(axis=0), points.max(axis=0)
    return (65_535 * (points - low) / np.where(high > low, high - low, 1)).astype(np.uint16)


def _column(texts: Sequence[str]) -> dict:
    """The different texts, the most frequent first and the empty one last, and each photo's."""
    values, counts = np.unique(np.array(texts, object).astype(str), return_counts=True)
    order = sorted(range(len(values)), key=lambda i: (values[i] == "", -counts[i], values[i]))
    place = {str(values[i]): number for number, i in enumerate(order)}
    return {"values": list(place), "index": [place[text] for text in texts]}


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
