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
from pipelines.sources import FlatImageFolder, Photo, UnreadableImage, printable, read_photo

_NEIGHBOURS = 8  # that fit into a row


@dataclass(frozen=True)
class Query:
    """A photo to find similar ones for.

    Attributes:
        name: for people.
        pixels: uint8 `[height, width, 3]`.
        photo: the photo of the folder that it is; None for one from elsewhere.
    """

    name: str
    pixels: np.ndarray
    photo: Photo | None


def read_query(text: str, images: FlatImageFolder) -> Query:
    """Reads a photo of the folder or from elsewhere.

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
    try:
        if photo is None:
            return Query(printable(text), read_photo(path), None)
        return Query(photo.name, read_photo(images.folder / photo.path), photo)
    except (OSError, UnreadableImage) as error:
        raise EmbedError(f"--nearest {text}: expected a photo that can be read; {error}") from error


def write_similar(
    embedded: EmbeddedPhotos, queries: list[Query], table: Path, sheet: Path
) -> list[list[str]]:
    """Writes the photos with the largest cosine to each query.

    Args:
        embedded: the photos.
        queries: to compare them with; a photo of the folder isn't similar to itself.
        table: the CSV file to write: query, rank, path, cosine.
        sheet: the PNG to write.

    Returns:
        The names of the similar photos of each query, the most similar first.
    """
    names, rows, lines = [], [], []
    row_of = {photo: row for row, photo in enumerate(embedded.photos)}
    for query in queries:
        own_row = None if query.photo is None else row_of.get(query.photo)
        vector = (
            embedded.embed_image(query.pixels) if own_row is None else embedded.embeddings[own_row]
        )
        indices, cosines = nearest_neighbours(
            vector[None],
            embedded.embeddings,
            _NEIGHBOURS,
            None if own_row is None else np.array([own_row]),
        )
        photos = [embedded.photos[index] for index in indices[0]]
        names.append([photo.name for photo in photos])
        row = [Cell(thumbnail(query.pixels), short_name(query.name), framed=True)]
        for rank, (photo, cosine) in enumerate(zip(photos, cosines[0], strict=True), start=1):
            lines.append((query.name, rank, photo.name, f"{cosine:.6f}"))
            caption = f"{short_name(photo.name)}\n{cosine:.3f}"
            row.append(Cell(read_thumbnail(embedded.images, photo), caption))
        rows.append(row)
    title = "framed: the query; then the nearest photos, with the cosine of their embeddings"
    write_sheet(sheet, rows, title)
    write_csv(table, ("query", "rank", "path", "cosine"), lines)
    return names


def read_thumbnail(images: FlatImageFolder, photo: Photo) -> np.ndarray | None:
    """Reads a photo for a sheet; None if it has become unreadable since it was embedded."""
    try:
        return thumbnail(images.read(photo))
    except UnreadableImage:
        return None
