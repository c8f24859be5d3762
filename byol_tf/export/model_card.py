"""Model card of an exported encoder: training data, accuracy, and verification of each file."""

import json
import re
from pathlib import Path
from typing import Any

from byol_tf import __version__
from byol_tf.config.schedule import method_name
from byol_tf.config.schema import Config
from byol_tf.constants import ENCODERS
from byol_tf.errors import code_span
from byol_tf.export.formats import FORMATS
from byol_tf.export.verification import display_title, read_verifications
from byol_tf.logs import counted
from byol_tf.runs.accuracy import Accuracy
from byol_tf.runs.files import write_atomically
from byol_tf.runs.folder import RESULT_FIGURES
from byol_tf.runs.sources import pixel_format
from byol_tf.runs.summary import ACCURACIES, RunFacts, export_sentences, gain_sentences
from pipelines.sources import RGB, PixelFormat
from pipelines.sources.pixels import white


def front_matter(
    name: str,
    tags: list[str],
    metrics: list[tuple[str, str, float]] | None = None,
    dataset: str = "",
    task: str = "image-feature-extraction",
) -> str:
    """Returns the YAML block at the top of a card, as `huggingface_hub.ModelCard` reads it.

    Args:
        name: name of the model.
        tags: tags in addition to those that every encoder of byol_tf has.
        metrics: (type, label, value) of each metric on the data set.
        dataset: name of the data set of the metrics.
        task: the hub's name of what the model does.
    """
    lines = [
        "library_name: keras",
        f"pipeline_tag: {task}",
        "license: unknown",
        "tags:",
    ]
    lines += [
        f"- {json.dumps(tag)}"
        for tag in (*tags, "self-supervised-learning", "feature-extraction", "tensorflow")
    ]
    if metrics:
        lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:"]
        lines += ["  - task:", "      type: image-classification", "    dataset:"]
        lines += [
            f"      type: {json.dumps(dataset)}",
            f"      name: {json.dumps(dataset)}",
            "    metrics:",
        ]
        for metric_type, label, value in metrics:
            lines += [
                f"    - type: {metric_type}",
                f"      name: {json.dumps(label)}",
                f"      value: {value:.4f}",
            ]
    return "\n".join(["---", *lines, "---", ""])


def input_words(pixels: PixelFormat) -> str:
    """Returns what images a model takes."""
    return f"images `[N, H, W, {pixels.channels}]` of any size, 0 to {white(pixels.dtype)}"


def preparation(config: Config, pixels: PixelFormat = RGB) -> str:
    """Returns a sentence about the preprocessing inside the SavedModel and the `.keras` file."""
    size, mean, std = config.inference_preparation
    return (
        f"The model resizes the largest centred square of an image to {size} px (bilinear, "
        "antialiased)\n"
        f"  and normalises it: (image / {white(pixels.dtype)} - mean) / std with mean "
        f"{_channels(mean)} and std {_channels(std)}."
    )


def _channels(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"


_MAPS = "maps `[N, h, w, c]` of the centred square, before they are pooled into representations"
_METHOD = """Each file was loaded in a process without byol_tf and compared with the run's own
encoder, on a CPU, one image at a time: on photos of odd sizes, and on images of the run's source
for the nearest neighbours. Differences are relative to the largest absolute value of all
representations."""


def write_card(facts: RunFacts, export: Path, maps: bool = False) -> None:
    """Writes the model card, `README.md`, of the files in a run's export folder.

    Args:
        facts: facts about the run.
        export: the export folder.
        maps: whether the files return maps, instead of representations.

    Raises:
        OSError: if it can't be written.
    """
    write_atomically(export / "README.md", _card(facts, export, maps))


def _card(facts: RunFacts, export: Path, maps: bool) -> str:
    config = facts.config
    figures = [
        (name, *accuracies)
        for key, name in ACCURACIES
        if (accuracies := facts.accuracies(key)) is not None
    ]
    metrics = [
        ("accuracy", f"{name} on frozen features", value.fraction) for name, _, value in figures
    ]
    lines = [
        front_matter(
            config.name,
            [method_name(config).lower().replace(" ", "-"), config.encoder.name],
            metrics,
            config.data.source,
        ),
        f"# {config.name}\n",
        f"An image encoder, {_network(config)}, trained without labels: {_summary(facts)}\n",
        f"* Input: {input_words(pixel_format(config))}. "
        f"Output: float32 {_MAPS if maps else 'representations `[N, d]`'}.",
        f"* {preparation(config, pixel_format(config))}\n",
    ]
    if figures:
        lines += _accuracy(facts, figures)
    lines += ["## Training\n", *_training(facts), ""]
    lines += [
        "## Files\n",
        *_files(export),
        "",
        "Tested code that uses each of them: [USAGE.md](USAGE.md).",
        "",
    ]
    lines += [
        "## Limits and license\n",
        "* It wasn't tested on images unlike those it was trained on. It predicts neither classes "
        "nor text.",
        "* No license was chosen: the owner of the weights chooses one and replaces `unknown` at "
        "the top.",
        "* Apply the EXIF orientation of a photo before it is encoded.",
    ]
    return "\n".join(lines) + "\n"


def _network(config: Config) -> str:
    if config.encoder.name not in ENCODERS:
        return f"`{config.encoder.name}`"
    width = f" of width {config.encoder.width:g}" if config.encoder.width != 1 else ""
    return f"`{config.encoder.name}`{width} with `{config.encoder.normalization}` normalisation"


def _summary(facts: RunFacts) -> str:
    config, result = facts.config, _complete_result(facts)
    start = (
        ""
        if config.encoder.weights is None
        else f" from the weights {code_span(Path(config.encoder.weights).name)}"
    )
    if result is None:
        done = facts.rows[-1]["epoch"] if facts.rows else 0
        return (
            f"{method_name(config)}{start} on `{config.data.source}`, {done:g} of "
            f"{counted(config.training.epochs, 'epoch')} so far."
        )
    return (
        f"{method_name(config)}{start} on {result['pretrain_images']:,} images of "
        f"`{config.data.source}`, {counted(result['epochs'], 'epoch')}."
    )


def _accuracy(facts: RunFacts, figures: list[tuple[str, Accuracy, Accuracy]]) -> list[str]:
    config = facts.config
    lines = [
        "## Accuracy\n",
        f"| accuracy on frozen features, `{config.data.source}` | {facts.start} | "
        f"{method_name(config)} |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {untrained} | {value} |" for name, untrained, value in figures]
    if facts.supervised is not None:
        lines.append(
            "| the same network trained from scratch, supervised on the same labels | | "
            f"{facts.supervised} |"
        )
    if facts.chance is not None:
        lines.append(f"| always the most frequent class | | {facts.chance:.1%} |")
    if facts.test_images is not None:
        images = counted(facts.test_images, facts.probe_image)
        lines += [
            "",
            f"In brackets: 95% interval, from {images}. {' '.join(gain_sentences(facts))}",
        ]
    return [*lines, ""]


def _training(facts: RunFacts) -> list[str]:
    config, result = facts.config, _complete_result(facts)
    precision = facts.environment.get("precision", config.devices.precision)
    lines = [
        f"* Batch size {config.training.batch_size}, {config.optimizer.name}, views of "
        f"{config.views.size} px, seed {config.seed}; trained in {precision}, "
        "exported in float32."
    ]
    if result is not None:
        lines.append(
            f"* {result['steps']:,} steps in {result['seconds']:,.0f} s, "
            f"{result['images_per_second']:,.0f} images/s."
        )
    lines += [f"* {sentence}" for sentence in export_sentences(facts)]
    last = facts.exported_rows[-1] if facts.rows else {}
    if {"loss", "projection_std", "effective_rank"} <= last.keys():
        lines.append(
            f"* At epoch {last['epoch']:g}: loss {last['loss']:.3f}, std of projections "
            f"{last['projection_std']:.2f} (1: spread out, 0: collapsed), effective rank of "
            f"representations {last['effective_rank']:.1f}."
        )
    versions = facts.environment.get("packages", {})
    packages = ", ".join(
        f"{_word(name)} {_word(version)}"
        for name, version in versions.items()
        if name.startswith(("tensorflow", "keras", "numpy"))
    )
    python, images = (
        facts.environment.get("python", "unknown"),
        facts.environment.get("data_fingerprint", "unknown"),
    )
    lines.append(
        f"* byol_tf {__version__}, Python {_word(python)}, {packages}. Images: "
        f"{code_span(str(images))}."
    )
    return lines


def _complete_result(facts: RunFacts) -> dict[str, Any] | None:
    """Returns the run's result, if it has all figures that the card gives."""
    result = facts.result
    return result if result is not None and result.keys() >= RESULT_FIGURES else None


def _word(text: object) -> str:
    """Returns a name or a version without what could be markup: the run may be somebody else's."""
    return re.sub(r"[^\w.+-]", "_", str(text))[:60]


def _files(export: Path) -> list[str]:
    verifications = read_verifications(export)
    lines = [
        "| file | MB | ms per photo | largest difference | smallest cosine | same neighbour |",
        "|---|---|---|---|---|---|",
    ]
    for export_format in FORMATS:
        if (export / export_format.file).exists():
            title = display_title(export_format, verifications)
            measured = _measurements(verifications.get(export_format.title))
            lines.append(f"| `{export_format.file}`: {title} | {measured} |")
    if verifications:
        return [*lines, "", _METHOD]
    return [
        *lines,
        "",
        "Not yet compared with the run's own encoder: run `python -m byol_tf.export --run ...`.",
    ]


def _measurements(verification: dict | None) -> str:
    if verification is None:
        return "- | - | - | - | -"
    fraction = verification["same_neighbour"]
    same = "-" if fraction is None else f"{fraction:.1%}"
    numbers = (
        f"{verification['megabytes']:.2f} | {verification['milliseconds']:.2f} "
        f"| {verification['difference']:.1e} | {verification['cosine']:.6f}"
    )
    return f"{numbers} | {same}"
