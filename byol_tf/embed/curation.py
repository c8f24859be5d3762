"""Near-duplicates, clusters, photos to label first and a page: the extra outputs of `embed`."""

import argparse
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from byol_tf.command_line import positive_fraction, positive_int
from byol_tf.embed.photos import EmbeddedPhotos
from byol_tf.errors import EmbedError
from byol_tf.logs import activity, counted
from byol_tf.runs.files import name_of_cell
from pipelines.sources import FlatImages, SourceError, read_table

_BY_PIXELS = -1.0
"""Value of `--duplicates` without a cosine."""


def add_curation_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--duplicates`, `--clusters`, `--pick` and `--page`."""
    parser.add_argument(
        "--duplicates",
        metavar="COSINE",
        type=positive_fraction,
        nargs="?",
        const=_BY_PIXELS,
        help="find near-duplicates: photos encoded again, resized, cropped a little, brightened or "
        "mirrored. With COSINE, such as 0.97: photos whose embeddings have at least this cosine, "
        "whatever their pixels",
    )
    parser.add_argument(
        "--clusters",
        metavar="K",
        type=positive_int,
        help="group the photos into K clusters, each with its most typical photos",
    )
    parser.add_argument(
        "--pick",
        metavar="N",
        type=positive_int,
        help="pick N different, typical photos to label first; with --few, besides those that have "
        "a label",
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="write a page for the browser, in one file: the photos on a map, the nearest of each, "
        "and filters by path, label, prediction, cluster and near-duplicates",
    )


def check_curation(
    options: argparse.Namespace, images: FlatImages, out: Path, labels: Mapping[str, str]
) -> None:
    """Raises an error if more is asked for than there are photos, or labels would be overwritten.

    Args:
        options: of the command.
        images: the folder of photos.
        out: the output folder.
        labels: of `--few`: from name to label.
    """
    for option in ("clusters", "pick"):
        number, count = getattr(options, option), len(images.photos)
        if number is not None and number > count:
            raise EmbedError(
                f"--{option} {number}: expected at most the {counted(count, 'photo')} below "
                f"{images.folder}"
            )
    table = out / "pick.csv"
    if options.pick is None or not table.exists():
        return
    if options.few is not None and table.samefile(options.few):
        return
    try:
        rows = read_table(table).rows
    except SourceError as error:
        raise EmbedError(f"--pick writes {table}, which is something else now: {error}") from error
    for row in rows:
        if row.label and labels.get(name_of_cell(row.path)) != row.label:
            raise EmbedError(
                f"--pick: {table} has labels (line {row.line}: {row.label!r}), which a new one "
                "would replace: pass it to --few, or move it"
            )


def curate(
    embedded: EmbeddedPhotos,
    options: argparse.Namespace,
    labels: Mapping[str, str],
    predictions: Sequence[str],
    facts: dict,
) -> Iterator[str]:
    """Finds what the options ask for, and writes its tables, sheets and page.

    Args:
        embedded: the photos.
        options: of the command.
        labels: of `--few`: from name to label.
        predictions: of `--few`: a class for each photo; empty without.
        facts: gets what was found.

    Returns:
        An iterator of the lines to print; each step is done when its lines come.
    """
    columns: dict[str, Sequence[str]] = {}
    if labels:
        columns["prediction"] = predictions
        columns["label"] = [labels.get(photo.name, "") for photo in embedded.photos]
    if options.duplicates is not None:
        columns["near-duplicate"] = yield from _duplicates(embedded, options.duplicates, facts)
    if options.clusters is not None:
        columns["cluster"] = yield from _clusters(embedded, options.clusters, facts)
    if options.pick is not None:
        yield from _pick(embedded, options.pick, labels, facts)
    if options.page:
        yield from _page(embedded, columns, facts)


Steps = Generator[str, None, list[str]]
"""Lines to print; returns a text for each photo, to filter the page by."""


def _duplicates(embedded: EmbeddedPhotos, cosine: float, facts: dict) -> Steps:
    from byol_tf.embed import duplicates

    groups = duplicates.find_duplicates(embedded, None if cosine == _BY_PIXELS else cosine)
    table, sheet = embedded.store.root / "duplicates.csv", embedded.store.root / "duplicates.png"
    duplicates.write_duplicates(table, embedded, groups)
    photos = sum(len(group.rows) for group in groups)
    dropped = photos - len(groups)
    facts["duplicates"] = {"groups": len(groups), "photos": photos, "drop": dropped}
    if not groups:
        sheet.unlink(missing_ok=True)
        yield from ("", "no near-duplicates")
        return [""] * len(embedded.photos)
    yield ""
    yield (
        f"{counted(photos, 'photo')} in {counted(len(groups), 'group')} of near-duplicates: "
        f"{dropped:,} to drop if the largest file of each is kept"
    )
    yield f"{table}   each group, what to keep and what to drop"
    duplicates.write_duplicates_sheet(sheet, embedded, groups)
    shown = _shown(len(groups), duplicates.SHEET_GROUPS)
    yield f"{sheet}   {shown} as a sheet, at most nine photos of each"
    suggestions = np.full(len(embedded.photos), "", object)
    for group in groups:
        suggestions[group.rows] = "drop"
        suggestions[group.rows[0]] = "keep"
    return suggestions.tolist()


def _clusters(embedded: EmbeddedPhotos, count: int, facts: dict) -> Steps:
    from byol_tf.embed import clusters

    with activity("clustering"):
        found = clusters.find_clusters(embedded.embeddings, count)
    table, sheet = embedded.store.root / "clusters.csv", embedded.store.root / "clusters.png"
    clusters.write_clusters(table, embedded, found)
    sizes = [len(rows) for rows in found.members()]
    facts["clusters"] = sizes
    yield ""
    yield (
        f"{counted(len(sizes), 'cluster')} of {sizes[-1]:,} to {counted(sizes[0], 'photo')}, the "
        "largest first"
    )
    yield f"{table}   the cluster of each photo, the most typical first"
    clusters.write_clusters_sheet(sheet, embedded, found)
    yield f"{sheet}   {_shown(len(sizes), clusters.SHEET_CLUSTERS)} as a sheet"
    return found.numbers.astype(str).tolist()


def _pick(
    embedded: EmbeddedPhotos, count: int, labels: Mapping[str, str], facts: dict
) -> Iterator[str]:
    from byol_tf.embed import clusters

    labelled = [row for row, photo in enumerate(embedded.photos) if photo.name in labels]
    with activity("clustering"):
        picked = clusters.pick_photos(embedded.embeddings, count, labelled)
    table, sheet = embedded.store.root / "pick.csv", embedded.store.root / "pick.png"
    facts["pick"] = len(picked)
    clusters.write_pick(table, embedded, picked, labels)
    yield ""
    yield f"{counted(len(picked), 'photo')} to label, the most typical first"
    yield f"{table}   fill in the column label, then pass it to --few"
    if picked:
        clusters.write_pick_sheet(sheet, embedded, picked)
        yield f"{sheet}   {_shown(len(picked), clusters.SHEET_PICKS)} as a sheet"


def _page(
    embedded: EmbeddedPhotos, columns: Mapping[str, Sequence[str]], facts: dict
) -> Iterator[str]:
    from byol_tf.embed.page import write_page

    page = embedded.store.root / "page.html"
    count = write_page(page, embedded, columns)
    facts["page"] = str(page)
    shown = f"{count:,} random photos" if count < len(embedded.photos) else "all photos"
    yield ""
    yield f"{page}   {shown} as a page: open it in a browser"


def _shown(count: int, limit: int) -> str:
    return f"the first {limit}" if count > limit else "the same"
