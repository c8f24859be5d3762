"""`python -m byol_tf.embed`: a heap of photos through an encoder: embeddings, photos that are
alike, a classifier from a few labels."""

import argparse
import hashlib
import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from byol_tf import __version__
from byol_tf.devices import prepare_environment
from byol_tf.embed.encoder_files import encoder_files
from byol_tf.embed.labels import match_labels, read_labels
from byol_tf.embed.photos import EmbeddedPhotos, Interrupted
from byol_tf.embed.store import Store
from byol_tf.errors import ConfigError, EmbedError, ProtocolError
from byol_tf.evaluate.knn import nearest
from byol_tf.runs.files import write_csv
from pipelines.sources import (
    FlatImageFolder,
    Photo,
    SourceError,
    UnreadableImage,
    printable,
    read_photo,
)

_USAGE_ERROR, _INTERRUPTED = 2, 130
_NEIGHBOURS = 8  # of a photo, that fit side by side
_UNCERTAIN = 24  # photos on the sheet of those to label next


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 2 with a message if encoder, photos or labels are
    wrong, 130 after Ctrl-C.

    What was embedded until a Ctrl-C is kept, and the same command goes on.
    """
    options = _parser().parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # folders may have names that are no text
    try:
        return _command(options, sys.argv[1:] if arguments is None else arguments)
    except (EmbedError, SourceError, ConfigError, ProtocolError) as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    except Interrupted as stopped:
        print(
            f"\nstopped; {stopped.photos:,} photos are embedded and kept. The same command goes on",
            flush=True,
        )
        return _INTERRUPTED
    except KeyboardInterrupt:  # before or after the photos are embedded
        print("\nstopped", flush=True)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m byol_tf.embed",
        description="Embeds all photos below a folder, once; shows which are alike; sorts them by "
        "a handful of labels. Changes no photo.",
    )
    parser.add_argument(
        "--encoder",
        metavar="PATH",
        required=True,
        help="a run folder, the folder of a SavedModel, or a .keras file",
    )
    parser.add_argument(
        "--images", metavar="DIR", required=True, help="the folder of photos, flat or nested"
    )
    parser.add_argument(
        "--nearest",
        metavar="PHOTO",
        nargs="+",
        default=[],
        help="show the photos most like these, from DIR or elsewhere",
    )
    parser.add_argument(
        "--few",
        metavar="LABELS",
        help="a table with the columns path and label: guess the labels of all other photos",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="where everything goes (default: embeddings/<folder>-<digest of encoder and folder>)",
    )
    return parser


def _command(options: argparse.Namespace, arguments: list[str]) -> int:
    encoder = encoder_files(options.encoder)
    given = None if options.few is None else read_labels(Path(options.few))
    heap = FlatImageFolder(options.images, "--images")
    labels = None
    if given is not None:
        names = [*(photo.name for photo in heap.photos), *heap.skipped]
        labels = match_labels(Path(options.few), given, names, heap.folder)
    queries = [_query(text, heap) for text in options.nearest]
    store = Store(_out(options, encoder.digest, heap.folder), encoder.digest, heap.folder)
    facts = {
        "encoder": str(encoder.path),
        "byol_tf": __version__,
        "command": shlex.join(["python", "-m", "byol_tf.embed", *arguments]),
    }
    embedded = EmbeddedPhotos(heap, encoder, store, facts)
    prepare_environment()
    embedded.embed_missing(_say)
    result = {
        "out": str(store.root),
        "photos": len(embedded.photos),
        "dimensions": embedded.embeddings.shape[1],
    }
    result |= {"reused": embedded.reused, "skipped": len(embedded.skipped)}
    _report_photos(embedded, store)
    if queries:
        _nearest(embedded, queries, store.root)
    if labels is not None:
        result["few"] = _few(embedded, labels, store.root, options.few)
    _report_next(options, embedded, store)
    print(json.dumps(result))
    return 0


def _out(options: argparse.Namespace, digest: str, images: Path) -> Path:
    """The folder for all that is written; by default one for each pair of encoder and photos, so
    that the next command finds it."""
    if options.out is not None:
        return Path(options.out)
    both = hashlib.sha256(digest.encode() + os.fsencode(images)).hexdigest()[:8]
    return Path("embeddings") / f"{images.name or 'photos'}-{both}"


@dataclass(frozen=True)
class _Query:
    """A photo to find others for: its name for people, its pixels, and which of the heap it is, if
    any."""

    name: str
    pixels: np.ndarray
    photo: Photo | None


def _query(text: str, heap: FlatImageFolder) -> _Query:
    """Reads a photo of the heap, by its path from here or as in index.csv, or a file from
    elsewhere. `EmbedError` if that can't be."""
    path = Path(text).expanduser()
    inside = os.path.relpath(path.absolute(), heap.folder).replace(os.sep, "/")
    found = {photo.path: photo for photo in heap.photos}.get(inside)
    if found is None and not path.is_file():
        found = {photo.name: photo for photo in heap.photos}.get(text)
        if found is None:
            raise EmbedError(
                f"--nearest {text}: there is no such file, neither here nor below {heap.folder}"
            )
    try:
        return (
            _Query(printable(text), read_photo(path), None)
            if found is None
            else _Query(found.name, read_photo(heap.folder / found.path), found)
        )
    except (OSError, UnreadableImage) as error:
        raise EmbedError(f"--nearest {text}: expected a photo that can be read; {error}") from error


def _nearest(embedded: EmbeddedPhotos, queries: list[_Query], out: Path) -> None:
    """Draws and lists the photos most like each query."""
    from byol_tf.embed.contact_sheet import Shown, sheet_figure, short_name, thumbnail

    rows, found, table = [], [], []
    at = {photo: row for row, photo in enumerate(embedded.photos)}
    for query in queries:
        name, own = query.name, at.get(query.photo)
        vector = embedded.embeddings[own] if own is not None else embedded.embedded(query.pixels)
        indices, cosines = nearest(embedded.embeddings, vector, _NEIGHBOURS, own)
        row = [Shown(thumbnail(query.pixels), short_name(name), marked=True)]
        for rank, (index, cosine) in enumerate(zip(indices, cosines, strict=True), start=1):
            photo = embedded.photos[index]
            row.append(
                Shown(_thumbnail(embedded.heap, photo), f"{short_name(photo.name)}\n{cosine:.3f}")
            )
            table.append((name, rank, photo.name, f"{cosine:.6f}"))
        rows.append(row)
        found.append(
            f"\n  most like {name}: "
            f"{', '.join(embedded.photos[index].name for index in indices[:3])}"
        )
    sheet_figure(
        out / "nearest.png",
        rows,
        "framed: the photo asked for; then the nearest, with the cosine of their embeddings",
    )
    write_csv(out / "nearest.csv", ("query", "rank", "path", "cosine"), table)
    print(*found, sep="")
    print(f"  {out / 'nearest.png'}   the picture\n  {out / 'nearest.csv'}   the same as a table")


def _few(embedded: EmbeddedPhotos, labels: dict[str, str], out: Path, file: str) -> dict:
    """Guesses the labels of all photos from a few; writes predictions.csv and a picture of those to
    label next."""
    from byol_tf.embed.contact_sheet import Shown, sheet_figure, short_name
    from byol_tf.embed.few_shot import fit_few_shot

    at = {photo.name: row for row, photo in enumerate(embedded.photos)}
    unreadable = sorted(name for name in labels if name not in at)
    for name in unreadable:
        print(
            f"  {file}: {name} has a label and can't be read "
            f"({embedded.skipped.get(name, 'gone')}): left out"
        )
    by_row = {at[name]: label for name, label in labels.items() if name in at}
    if len(set(by_row.values())) < 2:
        raise EmbedError(
            f"{file}: expected readable photos of two classes or more; without those that can't be "
            "read one is left"
        )
    few = fit_few_shot(embedded.embeddings, by_row)
    best, certain = few.probabilities.argmax(axis=1), few.probabilities.max(axis=1)
    order = sorted(
        range(len(best)), key=lambda row: (row in by_row, certain[row], row)
    )  # most uncertain first, labelled ones last
    table = (
        [
            embedded.photos[row].name,
            by_row.get(row, ""),
            few.classes[best[row]],
            f"{certain[row]:.4f}",
        ]
        + [f"{value:.4f}" for value in few.probabilities[row]]
        for row in order
    )
    head = ("path", "label", "prediction", "probability", *(f"p({name})" for name in few.classes))
    write_csv(out / "predictions.csv", head, table)
    open_rows = [row for row in order if row not in by_row]
    shown = [
        Shown(
            _thumbnail(embedded.heap, embedded.photos[row]),
            f"{short_name(embedded.photos[row].name)}\n{few.classes[best[row]]}? "
            f"{certain[row]:.0%}",
        )
        for row in open_rows[:_UNCERTAIN]
    ]
    if shown:
        sheet_figure(
            out / "uncertain.png",
            [shown[i : i + 6] for i in range(0, len(shown), 6)],
            "the most uncertain photos: label these next",
        )
    counts = np.bincount(best[open_rows], minlength=len(few.classes))
    _report_few(few, len(by_row), counts, out)
    estimate = few.estimate
    return {
        "labels": len(by_row),
        "classes": few.classes,
        "accuracy": None if estimate is None else round(estimate.right / estimate.of, 4),
        "interval": None if estimate is None else [round(estimate.low, 4), round(estimate.high, 4)],
    }


def _thumbnail(heap: FlatImageFolder, photo: Photo) -> np.ndarray | None:
    from byol_tf.embed.contact_sheet import thumbnail

    try:
        return thumbnail(heap.read(photo))
    except UnreadableImage:  # it could be read when it was embedded; its row is still right
        return None


def _report_photos(embedded: EmbeddedPhotos, store: Store) -> None:
    count, reused = len(embedded.photos), min(embedded.reused, len(embedded.photos))
    was = (
        "all kept from before"
        if reused == count
        else f"{reused:,} kept from before"
        if reused
        else "none kept from before"
    )
    print(
        f"\n  {count:,} photos below {embedded.heap.folder}, {embedded.embeddings.shape[1]:,} "
        f"numbers each ({was})"
    )
    if not reused:  # else they'd be about some of the photos
        for note in embedded.heap.notes():
            print(f"  {note}")
    if embedded.skipped:
        print(f"  skipped, as they can't be read ({store.skipped}):")
        for name, reason in sorted(embedded.skipped.items())[:5]:
            print(f"    {name}: {reason}")
        if len(embedded.skipped) > 5:
            print(f"    and {len(embedded.skipped) - 5:,} more")
    print(
        f"  {store.embeddings}   float32 [{count}, {embedded.embeddings.shape[1]}]\n  "
        f"{store.index}   the photo of each row"
    )


def _report_few(few, labels: int, counts: np.ndarray, out: Path) -> None:
    print(f"\n  {labels} labels of {len(few.classes)} classes; guessed for the others: ", end="")
    print(", ".join(f"{name} {count:,}" for name, count in zip(few.classes, counts, strict=True)))
    estimate = few.estimate
    if estimate is None:
        print(
            "  how good that is can't be said: it takes two labels or more of two classes or more"
        )
    else:
        print(
            f"  right for {estimate.right} of the {estimate.of} labels when they were held out "
            f"({estimate.folds}-fold cross-validation): "
            f"{estimate.right / estimate.of:.0%}\n"
            f"  so for {estimate.low:.0%} to {estimate.high:.0%} of all photos of such classes "
            "(95% interval), if those with labels were "
            f"picked at random; always the commonest class: {estimate.commonest:.0%}"
        )
        if few.alone:
            print(
                f"  {', '.join(few.alone)}: a single label each, which can't be held out and isn't "
                "counted"
            )
    print(
        f"  {out / 'predictions.csv'}   the most uncertain first\n  {out / 'uncertain.png'}   a "
        "picture of those"
    )


def _report_next(options: argparse.Namespace, embedded: EmbeddedPhotos, store: Store) -> None:
    words = [
        "python",
        "-m",
        "byol_tf.embed",
        "--encoder",
        options.encoder,
        "--images",
        options.images,
    ]
    again = shlex.join(words + (["--out", options.out] if options.out is not None else []))
    photo = str(embedded.heap.folder / embedded.photos[0].path)
    print("\n  next:")
    if not options.nearest:
        print(f"    {again} --nearest {shlex.quote(photo)}")
    if options.few is None:
        print(
            f"    {again} --few labels.csv   # columns path,label; some thirty photos do. "
            f"{store.index} has the paths"
        )
    else:
        predictions = shlex.quote(str(store.root / "predictions.csv"))
        print(f"    fill in the column label of its first rows, then: {again} --few {predictions}")
    print(f"    embeddings = numpy.load({str(store.embeddings)!r})['embeddings']\n")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
