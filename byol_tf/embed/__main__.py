"""`python -m byol_tf.embed`: embeds a folder of photos, finds similar ones, predicts labels."""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("embed")


import argparse
import logging
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from byol_tf import __version__
from byol_tf.command_line import (
    add_json_option,
    add_path,
    check_writable,
    command_parser,
    command_text,
    ends_with_exit_code,
    print_json,
    program,
)
from byol_tf.devices import prepare_environment
from byol_tf.embed.curation import add_curation_arguments, check_curation, curate
from byol_tf.embed.few_shot_command import check_export, predict_labels
from byol_tf.embed.labels import match_labels, read_labels
from byol_tf.embed.photos import EmbeddedPhotos, add_photo_arguments
from byol_tf.embed.search_index import check_usearch
from byol_tf.embed.store import Store, default_folder
from byol_tf.errors import EmbedError
from byol_tf.logs import ProgressLog, activity, counted, wrapped
from byol_tf.runs.encoder_files import encoder_files
from pipelines.sources import open_flat_images
from pipelines.sources.remote import Location

if TYPE_CHECKING:
    from usearch.index import Index

    from byol_tf.embed.similar import Query

logger = logging.getLogger(__name__)


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, 2 with a message if encoder, photos, labels or output folder are wrong,
        128 + n after signal n. What was embedded until then is stored, and the same command
        resumes.
    """
    options = _parser().parse_args(arguments)
    print_json(_run(options, arguments), options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "embed",
        description="Embeds all photos below a folder, each once; finds similar ones, "
        "near-duplicates and clusters; predicts labels from a few. Changes no photo.",
    )
    add_path(
        parser,
        "--encoder",
        "a run folder, the folder of a SavedModel, a .keras file, or hf://NAME/REPOSITORY",
        metavar="PATH",
        required=True,
    )
    add_photo_arguments(parser, "embeddings", "encoder")
    add_path(
        parser,
        "--nearest",
        "show the photos most similar to these, from DIR or elsewhere",
        metavar="PHOTO",
        nargs="+",
        default=[],
    )
    parser.add_argument(
        "--parquet",
        action="store_true",
        help="also write embeddings.parquet, and rewrite it whenever the embeddings change",
    )
    parser.add_argument(
        "--index",
        action="store_true",
        help="build an approximate index for searches among millions, which --nearest uses, and "
        "print its recall; needs the extra search-index",
    )
    parser.add_argument(
        "--part",
        metavar="I/N",
        type=_part,
        help="embed only the I-th of N parts of the new photos, beside processes for the others; "
        "the command without it merges them",
    )
    add_path(
        parser,
        "--few",
        "a table with the columns path and label: predict the labels of all other photos",
        metavar="LABELS",
    )
    add_curation_arguments(parser)
    add_path(
        parser,
        "--export",
        "with --few: new folder for the classifier that predicts these labels, in each format "
        "whose packages are installed",
    )
    add_json_option(parser)
    return parser


def _run(options: argparse.Namespace, arguments: list[str]) -> dict:
    """Runs the command; returns the facts that it prints last."""
    encoder = encoder_files(options.encoder)
    check_export(options, encoder)
    _check_part(options)
    if options.index:
        check_usearch()
    rows = None if options.few is None else read_labels(Path(options.few))

    def output_folder(images: Location) -> Path:
        return Path(options.out or default_folder("embeddings", encoder.digest, images))

    images = open_flat_images(
        options.images, "--images", output_folder, ProgressLog(logger), encoder.pixels
    )
    labels = None
    if rows is not None:
        names = [*(photo.name for photo in images.photos), *images.skipped]
        labels = match_labels(Path(options.few), rows, names, images.folder)
    queries = []
    if options.nearest:
        from byol_tf.embed.similar import read_query

        queries = [read_query(text, images) for text in options.nearest]
    out = output_folder(images.folder)
    check_writable(out, "--out")
    check_curation(options, images, out, labels or {})
    store = Store(out, encoder.digest, images.folder)
    if options.part is not None:
        number, count = options.part
        missing = store.missing(images.photos)
        store = store.part(number, count)
        bounds = [len(missing) * each // count for each in (number - 1, number)]
        images.photos = images.photos.take(missing[slice(*bounds)])
        if not images.photos:
            print(f"\n  part {number}/{count}: no photo is left to embed\n")
            return {"out": str(store.root), "photos": 0}
    facts = {
        "encoder": str(encoder.path),
        "byol_tf": __version__,
        "command": command_text("embed", arguments),
    }
    prepare_environment()
    parquet = options.parquet or store.parquet.exists()  # new embeddings remove it
    with store.locked():
        embedded = EmbeddedPhotos(images, encoder, store, facts)
        embedded.embed_missing()
        images.save_index()
        _print_photos(embedded)
        result = {
            "out": str(store.root),
            "photos": len(embedded.photos),
            "dimensions": embedded.embeddings.shape[1],
            "reused": embedded.reused,
            "skipped": len(embedded.skipped),
        }
        if parquet:
            _write_parquet(embedded)
        index = None
        if options.index:
            index, result["recall"] = _open_index(embedded)
        if queries:
            _find_similar(embedded, queries, index)
        predictions: list[str] = []
        if labels is not None:
            result["few"], predictions = predict_labels(embedded, labels, options)
        for line in curate(embedded, options, labels or {}, predictions, result):
            print(wrapped(line) if line else "")
    _print_next_commands(options, embedded)
    return result


def _part(text: str) -> tuple[int, int]:
    """Reads `3/16`, the third of 16 parts."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(
            f"expected I/N such as 3/16, 1 <= I <= N; received {text!r}"
        )
    return int(number), int(count)


def _check_part(options: argparse.Namespace) -> None:
    beside = ("encoder", "images", "out", "part", "json")
    given = [name for name, value in vars(options).items() if value and name not in beside]
    if options.part is not None and given:
        raise EmbedError(
            f"--part: expected no --{given[0]} beside it; give that to the command without --part, "
            "which merges the parts"
        )


def _write_parquet(embedded: EmbeddedPhotos) -> None:
    from byol_tf.embed.parquet import write_parquet

    write_parquet(embedded.store, embedded.photos)
    print(f"  {embedded.store.parquet}   both in one table")


def _open_index(embedded: EmbeddedPhotos) -> tuple["Index", float]:
    from byol_tf.embed.search_index import measure_recall, open_index
    from byol_tf.embed.similar import NEIGHBOURS

    index = open_index(embedded.store)
    recall = measure_recall(index, embedded.embeddings, NEIGHBOURS)
    found = f"an approximate index: finds {recall:.1%} of the {NEIGHBOURS} nearest"
    print(f"  {embedded.store.search_index}   {found}")
    return index, round(recall, 4)


def _find_similar(embedded: EmbeddedPhotos, queries: list["Query"], index: "Index | None") -> None:
    from byol_tf.embed.similar import SHEET_QUERIES, find_similar, write_nearest_sheet, write_table

    table, sheet = embedded.store.root / "nearest.csv", embedded.store.root / "nearest.png"
    with activity("searching"):
        similar = find_similar(embedded, queries, index)
    write_table(table, similar)
    print()
    for matches in similar:
        names = ", ".join(photo.name for photo, _ in matches.photos[:3])
        print(wrapped(f"most similar to {matches.query.name}: {names}", indent=4))
    print(f"  {table}   all as a table")
    write_nearest_sheet(sheet, embedded, similar)
    shown = f"the first {SHEET_QUERIES} as" if len(similar) > SHEET_QUERIES else "the same as"
    print(f"  {sheet}   {shown} a sheet")


def _print_photos(embedded: EmbeddedPhotos) -> None:
    store, (count, dimensions) = embedded.store, embedded.embeddings.shape
    reused = min(embedded.reused, count)
    stored = "all" if reused == count else f"{reused:,}" if reused else "none"
    print()
    print(
        wrapped(
            f"{counted(count, 'photo')} below {embedded.images.folder}, "
            f"{counted(dimensions, 'number')} each ({stored} stored before)"
        )
    )
    if not reused:  # otherwise the notes would be about a part of the photos
        for note in embedded.images.notes():
            print(wrapped(note))
    for line in embedded.skipped_lines():
        print(f"  {line}")
    print(f"  {store.embeddings}   float32 [{count}, {dimensions}]")
    print(f"  {store.index}   the photo of each row")


def _example_photo(options: argparse.Namespace, embedded: EmbeddedPhotos) -> str:
    """Returns a photo for a command line: the first one whose name a terminal can show."""
    names = (
        os.path.join(options.images, photo.path) if os.path.isdir(options.images) else photo.name
        for photo in embedded.photos
    )
    return next((shlex.quote(name) for name in names if name.isprintable()), "PHOTO")


def _print_next_commands(options: argparse.Namespace, embedded: EmbeddedPhotos) -> None:
    store = embedded.store
    words = ["--encoder", options.encoder, "--images", options.images]
    if options.out is not None:
        words += ["--out", options.out]
    command = command_text("embed", words)
    print("\n  next:")
    if options.part is not None:
        print(wrapped(f"when all {options.part[1]} parts are embedded, merge them:", indent=4))
        print(f"    {command}\n")
        return
    if not options.nearest:
        photo = _example_photo(options, embedded)
        print(f"    {command} --nearest {photo}")
    if not options.page:
        print(f"    {command} --duplicates --page")
    if options.few is None and options.pick is not None:
        print("    fill in the column label of pick.csv, then:")
        print(f"    {command} --few {shlex.quote(str(store.root / 'pick.csv'))}")
    elif options.few is None:
        print(f"    {command} --few labels.csv")
        columns = f"columns path,label of about thirty photos; {store.index} has the paths"
        print(wrapped(f"labels.csv: {columns}", indent=6, first=6))
    else:
        predictions = shlex.quote(str(store.root / "predictions.csv"))
        print("    fill in the column label of the first rows of predictions.csv, then:")
        print(f"    {command} --few {predictions}")
    if options.export is not None:
        print(f"    {program('predict')} --classifier {shlex.quote(options.export)} --images DIR")
    print(f"    embeddings = numpy.load({str(store.embeddings)!r}, mmap_mode='r')\n")
