"""The photos most similar to some query photos, as a table and as a sheet."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from byol_tf.embed.contact_sheet import Cell, short_name, thumbnail, write_sheet
from byol_tf.embed.photos import EmbeddedPhotos
from byol_tf.errors import EmbedError
from byol_tf.evaluate.knn import nearest_neighbours
from byol_tf.runs.files import write_csv
from pipelines.sources import (
    FlatImageFolder,
    Photo,
    PixelFormat,
    UnreadableImage,
    printable,
    read_photo,
)

_NEIGHBOURS = 8  # that fit into a row
SHEET_QUERIES = 40
"""Most queries that a sheet shows: one of 235 is more pixels than matplotlib draws."""


@dataclass(frozen=True)
class Query:
    """A photo to find similar ones for.

    Attributes:
        name: for people.
        path: of the file.
        photo: the photo of the folder that it is; None for one from elsewhere.
        pixels: channels, depth and range that it is read with.
    """

    name: str
    path: Path
    photo: Photo | None
    pixels: PixelFormat

    def read(self) -> np.ndarray:
        """Reads the photo, `[height, width, channels]`."""
        try:
            return read_photo(self.path, self.pixels)
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


def read_query(text: str, images: FlatImageFolder) -> Query:
    """Finds a photo of the folder or from elsewhere, and checks that it can be read.

    Args:
        text: a path from the working directory, or as in `index.csv`.
        images: the folder.

    Raises:
        EmbedError: if there is no such file, or it can't be read.
    """
    path = Path(text).expanduser()
    relative = os.path.relpath(path.absolute(), images.folder).replace(os.sep, "/")
    photo = {photo.path: photo for photo in images.photos}.get(relative)
    if photo is None and not os.path.isfile(path):
        photo = {photo.name: photo for photo in images.photos}.get(text)
        if photo is None:
            raise EmbedError(
                f"--nearest {text}: there is no such file, neither here nor below {images.folder}"
            )
    query = (
        Query(printable(text), path, None, images.pixels)
        if photo is None
        else Query(photo.name, images.folder / photo.path, photo, images.pixels)
    )
    query.read()  # not kept: hundreds of photos would take gigabytes
    return query


def find_similar(embedded: EmbeddedPhotos, queries: list[Query]) -> list[Matches]:
    """Returns the photos with the largest cosine to each query.

    Args:
        embedded: the photos.
        queries: to compare them with; a photo of the folder isn't similar to itself.
    """
    similar = []
    row_of = {photo: row for row, photo in enumerate(embedded.photos)}
    for query in queries:
        own_row = None if query.photo is None else row_of.get(query.photo)
        vector = (
            embedded.embed_image(query.read()) if own_row is None else embedded.embeddings[own_row]
        )
        indices, cosines = nearest_neighbours(
            vector[None],
            embedded.embeddings,
            _NEIGHBOURS,
            None if own_row is None else np.array([own_row]),
        )
        photos = [embedded.photos[index] for index in indices[0]]
        similar.append(Matches(query, list(zip(photos, map(float, cosines[0]), strict=True))))
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


def read_thumbnail(images: FlatImageFolder, photo: Photo) -> np.ndarray | None:
    """Reads a photo for a sheet; None if it has become unreadable since it was embedded."""
    try:
        return thumbnail(images.read(photo))
    except UnreadableImage:
        return None
