"""The photos most similar to some query photos, as a table and as a sheet."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from byol_tf.embed.contact_sheet import Cell, short_name, thumbnail, write_sheet
from byol_tf.embed.photos import EmbeddedPhotos
from byol_tf.embed.search_index import search
from byol_tf.errors import EmbedError
from byol_tf.evaluate.knn import nearest_neighbours
from byol_tf.runs.files import write_csv
from pipelines.sources import FlatImages, Photo, UnreadableImage, printable, read_photo

if TYPE_CHECKING:
    from usearch.index import Index

NEIGHBOURS = 8
"""Photos that fit into a row of the sheet."""
SHEET_QUERIES = 40
"""Most queries that a sheet shows: one of 235 is more pixels than matplotlib draws."""


@dataclass(frozen=True)
class Query:
    """A photo to find similar ones for.

    Attributes:
        name: for people.
        photo: the photo of the folder that it is; None for one from elsewhere.
        load: reads its pixels. Raises OSError, UnreadableImage.
    """

    name: str
    photo: Photo | None
    load: Callable[[], np.ndarray]

    def read(self) -> np.ndarray:
        """Reads the photo, `[height, width, channels]`."""
        try:
            return self.load()
        except (OSError, UnreadableImage) as error:
            raise EmbedError(
                f"--nearest {self.name}: expected a photo that can be read; {error}"
            ) from error


@dataclass(frozen=True)
class Matches:
    """The photos most similar to a query.

    Attributes:
        query: the photo that others are compared with.
        photos: (photo, cosine), the most similar first.
    """

    query: Query
    photos: list[tuple[Photo, float]]


def read_query(text: str, images: FlatImages) -> Query:
    """Finds a photo of the folder or from elsewhere, and checks that it can be read.

    Args:
        text: a path from the working directory, or as in `index.csv`.
        images: the folder.

    Raises:
        EmbedError: if there is no such file, or it can't be read.
    """
    path = Path(text).expanduser()
    relative = os.path.relpath(path.absolute(), str(images.folder)).replace(os.sep, "/")
    row = images.photos.row_of_path(relative)
    if row is None and not os.path.isfile(path):
        row = images.photos.row_of_name(text)
        if row is None:
            raise EmbedError(
                f"--nearest {text}: there is no such file, neither here nor below {images.folder}"
            )
    if row is None:
        query = Query(printable(text), None, functools.partial(read_photo, path, images.pixels))
    else:
        photo = images.photos[row]
        query = Query(photo.name, photo, functools.partial(images.read, photo))
    query.read()  # not kept: hundreds of photos would take gigabytes
    return query


def find_similar(
    embedded: EmbeddedPhotos, queries: list[Query], index: "Index | None" = None
) -> list[Matches]:
    """Returns the photos with the largest cosine to each query.

    Args:
        embedded: the photos.
        queries: to compare them with; a photo of the folder isn't similar to itself.
        index: to find most of them by (see `search_index.py`); without it all photos are compared.
    """
    rows = [
        None if query.photo is None else embedded.photos.row_of_path(query.photo.path)
        for query in queries
    ]
    vectors = np.stack(
        [
            embedded.embed_image(query.read()) if row is None else embedded.embeddings[row]
            for query, row in zip(queries, rows, strict=True)
        ]
    )
    count = NEIGHBOURS + 1  # one of which may be the query itself
    nearest = (
        zip(*nearest_neighbours(vectors, embedded.embeddings, count), strict=True)
        if index is None
        else search(index, vectors, embedded.embeddings, count)
    )
    similar = []
    for query, row, (indices, cosines) in zip(queries, rows, nearest, strict=True):
        found = zip(indices.tolist(), cosines.tolist(), strict=True)
        others = [(embedded.photos[each], cosine) for each, cosine in found if each != row]
        similar.append(Matches(query, others[:NEIGHBOURS]))
    return similar


def write_table(path: Path, similar: list[Matches]) -> None:
    """Writes a CSV file: query, rank, path, cosine."""
    write_csv(
        path,
        ("query", "rank", "path", "cosine"),
        (
            (matches.query.name, rank, photo.name, f"{cosine:.6f}")
            for matches in similar
            for rank, (photo, cosine) in enumerate(matches.photos, start=1)
        ),
    )


def write_nearest_sheet(path: Path, embedded: EmbeddedPhotos, similar: list[Matches]) -> None:
    """Draws a row for each of the first `SHEET_QUERIES` queries, as a PNG."""
    rows = []
    for matches in similar[:SHEET_QUERIES]:
        row = [Cell(_query_thumbnail(matches.query), short_name(matches.query.name), framed=True)]
        for photo, cosine in matches.photos:
            caption = f"{short_name(photo.name)}\n{cosine:.3f}"
            row.append(Cell(read_thumbnail(embedded.images, photo), caption))
        rows.append(row)
    title = "framed: the query; then the nearest photos, with the cosine of their embeddings"
    write_sheet(path, rows, title)


def _query_thumbnail(query: Query) -> np.ndarray | None:
    """Reads a query for a sheet; None if it has become unreadable."""
    try:
        return thumbnail(query.read())
    except EmbedError:
        return None


def read_thumbnail(images: FlatImages, photo: Photo) -> np.ndarray | None:
    """Reads a photo for a sheet; None if it has become unreadable since it was embedded."""
    try:
        return thumbnail(images.read(photo))
    except UnreadableImage:
        return None
