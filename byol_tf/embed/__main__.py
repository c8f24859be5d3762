"""`python -m byol_tf.embed`: embeds a folder of photos, finds similar ones, predicts labels."""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("embed")


import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from byol_tf import __version__
from byol_tf.command_line import (
    add_json_option,
    check_writable,
    command_parser,
    ends_with_exit_code,
    print_json,
    program,
)
from byol_tf.devices import prepare_environment
from byol_tf.embed.labels import match_labels, read_labels
from byol_tf.embed.photos import EmbeddedPhotos, add_photo_arguments
from byol_tf.embed.store import Store, default_folder
from byol_tf.errors import EmbedError
from byol_tf.export.classifier_folder import check_classifier_folder
from byol_tf.logs import counted, wrapped
from byol_tf.runs.encoder_files import EncoderFiles, encoder_files
from pipelines.sources import FlatImageFolder

if TYPE_CHECKING:
    from byol_tf.embed.similar import Query


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Runs the command.

    Args:
        arguments: of the command line; those of the process by default.

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
        prog=program("embed"),
        description="Embeds all photos below a folder, each once; finds similar ones; predicts "
        "labels from a few. Changes no photo.",
    )
    parser.add_argument(
        "--encoder",
        metavar="PATH",
        type=os.path.expanduser,
        required=True,
        help="a run folder, the folder of a SavedModel, or a .keras file",
    )
    add_photo_arguments(parser, "embeddings", "encoder")
    parser.add_argument(
        "--nearest",
        metavar="PHOTO",
        type=os.path.expanduser,
        nargs="+",
        default=[],
        help="show the photos most similar to these, from DIR or elsewhere",
    )
    parser.add_argument(
        "--few",
        metavar="LABELS",
        type=os.path.expanduser,
        help="a table with the columns path and label: predict the labels of all other photos",
    )
    parser.add_argument(
        "--export",
        metavar="DIR",
        type=os.path.expanduser,
        help="with --few: folder for the classifier that predicts these labels, in each format "
        "whose packages are installed",
    )
    add_json_option(parser)
    return parser


def _run(options: argparse.Namespace, arguments: list[str]) -> dict:
    """Runs the command; returns the facts that it prints last."""
    encoder = encoder_files(options.encoder)
    _check_export(options, encoder)
    rows = None if options.few is None else read_labels(Path(options.few))
    images = FlatImageFolder(options.images, "--images", encoder.pixels)
    labels = None
    if rows is not None:
        names = [*(photo.name for photo in images.photos), *images.skipped]
        labels = match_labels(Path(options.few), rows, names, images.folder)
    queries = []
    if options.nearest:
        from byol_tf.embed.similar import read_query

        queries = [read_query(text, images) for text in options.nearest]
    out = _output_folder(options, encoder.digest, images.folder)
    check_writable(out, "--out")
    store = Store(out, encoder.digest, images.folder)
    facts = {
        "encoder": str(encoder.path),
        "byol_tf": __version__,
        "command": shlex.join([*program("embed").split(), *arguments]),
    }
    prepare_environment()
    with store.locked():
        embedded = EmbeddedPhotos(images, encoder, store, facts)
        embedded.embed_missing()
        _print_photos(embedded)
        result = {
            "out": str(store.root),
            "photos": len(embedded.photos),
            "dimensions": embedded.embeddings.shape[1],
            "reused": embedded.reused,
            "skipped": len(embedded.skipped),
        }
        if queries:
            _find_similar(embedded, queries)
        if labels is not None:
            result["few"] = _predict_labels(embedded, labels, options)
    _print_next_commands(options, embedded)
    return result


def _output_folder(options: argparse.Namespace, digest: str, images: Path) -> Path:
    """The output folder; the default is the same whenever encoder and folder are."""
    return Path(options.out) if options.out else default_folder("embeddings", digest, images)


def _find_similar(embedded: EmbeddedPhotos, queries: list["Query"]) -> None:
    from byol_tf.embed.similar import SHEET_QUERIES, find_similar, write_nearest_sheet, write_table

    table, sheet = embedded.store.root / "nearest.csv", embedded.store.root / "nearest.png"
    similar = find_similar(embedded, queries)
    write_table(table, similar)
    print()
    for matches in similar:
        names = ", ".join(photo.name for photo, _ in matches.photos[:3])
        print(wrapped(f"most similar to {matches.query.name}: {names}", indent=4))
    print(f"  {table}   all as a table")
    write_nearest_sheet(sheet, embedded, similar)
    shown = f"the first {SHEET_QUERIES} as" if len(similar) > SHEET_QUERIES else "the same as"
    print(f"  {sheet}   {shown} a sheet")


def _check_export(options: argparse.Namespace, encoder: EncoderFiles) -> None:
    """Raises an error if a classifier can't be exported, before the work on it."""
    if options.export is None:
        return
    if options.few is None:
        raise EmbedError("--export: expected --few as well, whose labels the classifier predicts")
    if not encoder.is_run and encoder.path.suffix != ".keras":
        raise EmbedError(
            f"--export: expected --encoder to be a run or a .keras file; {encoder.path} is a "
            "SavedModel, whose layers can't be written in other formats"
        )
    check_classifier_folder(Path(options.export))
    check_writable(Path(options.export), "--export")


def _predict_labels(
    embedded: EmbeddedPhotos, labels: dict[str, str], options: argparse.Namespace
) -> dict:
    from byol_tf.embed.few_shot import fit_few_shot
    from byol_tf.embed.predictions import (
        label_rows,
        write_predictions,
        write_uncertain_sheet,
    )

    rows = label_rows(embedded, labels, options.few)
    result = fit_few_shot(embedded.embeddings, rows)
    table, sheet = embedded.store.root / "predictions.csv", embedded.store.root / "uncertain.png"
    counts = write_predictions(embedded, rows, result, table)
    others = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    print()
    print(
        wrapped(f"{len(rows)} labels of {len(counts)} classes; predicted for the others: {others}")
    )
    facts = {"labels": len(rows), "classes": result.classes, "accuracy": None, "interval": None}
    if (estimate := result.estimate) is None:
        print("  accuracy unknown: cross-validation needs two classes with two labels each")
    else:
        low, high = estimate.accuracy.interval or (0.0, 1.0)
        lines = [
            f"correct for {estimate.correct} of the {estimate.count} labels when they were held "
            f"out ({estimate.folds}-fold cross-validation): {estimate.accuracy.fraction:.0%}",
            f"95% interval of the accuracy on all photos of these classes, if those with labels "
            f"were chosen at random: {low:.0%} to {high:.0%}; always the most frequent class: "
            f"{estimate.majority:.0%}",
        ]
        if result.single_label_classes:
            lines.append(
                f"{', '.join(result.single_label_classes)}: a single label each, which can't be "
                "held out and isn't counted"
            )
        for line in lines:
            print(wrapped(line))
        facts["accuracy"] = round(estimate.accuracy.fraction, 4)
        facts["interval"] = [round(low, 4), round(high, 4)]
    print(f"  {table}   the least certain first")
    if write_uncertain_sheet(embedded, rows, result, sheet):
        print(f"  {sheet}   a sheet of those")
    if options.export is not None:
        from byol_tf.embed.few_shot_export import export_few_shot

        files = export_few_shot(embedded, rows, result, Path(options.export))
        facts["export"] = {"folder": options.export, "files": files}
        print(wrapped(f"{options.export}   the classifier: {', '.join(files)}; USAGE.md"))
    return facts


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


def _print_next_commands(options: argparse.Namespace, embedded: EmbeddedPhotos) -> None:
    store = embedded.store
    words = ["--encoder", options.encoder, "--images", options.images]
    if options.out is not None:
        words += ["--out", options.out]
    command = shlex.join([*program("embed").split(), *words])
    print("\n  next:")
    if not options.nearest:
        photo = str(Path(options.images) / embedded.photos[0].path)
        print(f"    {command} --nearest {shlex.quote(photo)}")
    if options.few is None:
        print(f"    {command} --few labels.csv")
        columns = f"columns path,label of about thirty photos; {store.index} has the paths"
        print(wrapped(f"labels.csv: {columns}", indent=6, first=6))
    else:
        predictions = shlex.quote(str(store.root / "predictions.csv"))
        print("    fill in the column label of the first rows of predictions.csv, then:")
        print(f"    {command} --few {predictions}")
    if options.export is not None:
        print(f"    {program('predict')} --classifier {shlex.quote(options.export)} --images DIR")
    print(f"    embeddings = numpy.load({str(store.embeddings)!r})['embeddings']\n")
