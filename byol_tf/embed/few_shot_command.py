"""The options `--few` and `--export` of the command: their checks, work and lines."""

import argparse
import itertools
from pathlib import Path

from byol_tf.command_line import check_writable
from byol_tf.embed.photos import EmbeddedPhotos
from byol_tf.errors import EmbedError
from byol_tf.export.classifier_folder import check_classifier_folder
from byol_tf.logs import activity, wrapped
from byol_tf.runs.encoder_files import EncoderFiles
from byol_tf.runs.files import name_of_cell
from pipelines.sources import SourceError, read_table


def check_export(options: argparse.Namespace, encoder: EncoderFiles) -> None:
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


def predict_labels(
    embedded: EmbeddedPhotos, labels: dict[str, str], options: argparse.Namespace
) -> tuple[dict, list[str]]:
    """Predicts the labels of all photos, prints and writes them, and exports the classifier.

    Args:
        embedded: the photos.
        labels: from a photo's name to its label.
        options: of the command.

    Returns:
        The facts for the command's last line, and the predicted class of each photo.
    """
    from byol_tf.embed.few_shot import fit_few_shot
    from byol_tf.embed.predictions import (
        label_rows,
        write_predictions,
        write_uncertain_sheet,
    )

    rows = label_rows(embedded, labels, options.few)
    with activity("fitting the classifier"):
        result = fit_few_shot(embedded.embeddings, rows)
    table, sheet = embedded.store.root / "predictions.csv", embedded.store.root / "uncertain.png"
    kept = _keep_filled_in(table, labels, Path(options.few))
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
    if kept is not None:
        print(f"  {kept}   the table before, with labels that --few didn't give")
    if write_uncertain_sheet(embedded, rows, result, sheet):
        print(f"  {sheet}   a sheet of those")
    if options.export is not None:
        from byol_tf.embed.few_shot_export import export_few_shot

        with activity("exporting the classifier"):
            files = export_few_shot(embedded, rows, result, Path(options.export))
        facts["export"] = {"folder": options.export, "files": files}
        print(wrapped(f"{options.export}   the classifier: {', '.join(files)}; USAGE.md"))
    return facts, [result.classes[place] for place in result.probabilities.argmax(axis=1)]


def _keep_filled_in(table: Path, labels: dict[str, str], few: Path) -> Path | None:
    """Renames a table in which somebody has filled in labels that weren't given.

    Args:
        table: that is about to be written.
        labels: that were given, from a photo's name.
        few: their file, which may be the table itself.

    Returns:
        Its new path; None where nothing would be lost.
    """
    if not table.exists() or table.samefile(few):
        return None
    try:
        rows = read_table(table).rows
    except SourceError:  # no table any more
        rows = []
    if all(labels.get(name_of_cell(row.path)) == row.label for row in rows if row.label):
        return None
    names = (table.with_stem(f"{table.stem}-{number}") for number in itertools.count(1))
    return table.rename(next(name for name in names if not name.exists()))
