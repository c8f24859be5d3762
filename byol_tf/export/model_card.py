"""The model card of a run's exports: what was learned from what, how good it is, how near each file
is."""

import json
from pathlib import Path

from byol_tf import __version__
from byol_tf.config.schedule import method_name
from byol_tf.config.schema import Config, Views
from byol_tf.export.formats import FORMS, heading, read_proofs
from byol_tf.runs.files import write_atomically
from byol_tf.runs.summary import RunFacts


def front_matter(
    name: str,
    tags: list[str],
    metrics: list[tuple[str, str, float]] | None = None,
    dataset: str = "",
) -> str:
    """The YAML at the top of a card, as `huggingface_hub.ModelCard` reads it.

    Args:
        name: of the model.
        tags: beside those that every encoder of ours has.
        metrics: (metric's type, its name, its value) on a data set.
        dataset: its name.
    """
    lines = [
        "library_name: keras",
        "pipeline_tag: image-feature-extraction",
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
        for kind, label, value in metrics:
            lines += [
                f"    - type: {kind}",
                f"      name: {json.dumps(label)}",
                f"      value: {value:.4f}",
            ]
    return "\n".join(["---", *lines, "---", ""])


def preparation(views: Views) -> str:
    """What happens to an image before the network sees it, all of it inside the SavedModel and the
    `.keras` file."""
    return (
        f"An image's largest centred square is resized to {views.size} px (bilinear, antialiased), "
        "then\n"
        f"  (image / 255 - mean) / deviation with {_numbers(views.mean)} and "
        f"{_numbers(views.std)}: all of that is inside."
    )


def _numbers(three: tuple[float, float, float]) -> str:
    return f"({', '.join(f'{number:g}' for number in three)})"


_HOW_MEASURED = """Each was loaded where byol_tf isn't and compared with the run's own encoder, on a CPU, one photo at a time: photos of odd
sizes, and images of the run's source for the neighbours. The difference is a share of the largest value of all representations."""
_ACCURACIES = (("linear probe", "probe_accuracy"), ("nearest neighbours", "knn_accuracy"))


def write_card(facts: RunFacts, export: Path) -> None:
    """Writes `README.md` into a run's export folder, which lists what is there."""
    write_atomically(export / "README.md", _card(facts, export))


def _card(facts: RunFacts, export: Path) -> str:
    config = facts.config
    figures = [
        (name, untrained, value)
        for name, key in _ACCURACIES
        for untrained, value in [facts.first_and_last(key)]
        if untrained is not None and value is not None
    ]
    metrics = [("accuracy", f"{name} on frozen features", value) for name, _, value in figures]
    parts = [
        front_matter(
            config.name,
            [method_name(config).lower(), config.encoder.name],
            metrics,
            config.data.source,
        ),
        f"# {config.name}\n",
        f"An image encoder, {_network(config)}, trained without labels: {_learned_from(facts)}\n",
        "* Images `[N, H, W, 3]` of any size, 0 to 255, in; float32 representations `[N, d]` out.",
        f"* {preparation(config.views)}\n",
    ]
    if figures:
        parts += _figures(facts, figures)
    parts += ["## How it learned\n", *_how_it_learned(facts), ""]
    parts += [
        "## Files\n",
        *_files(export),
        "",
        "How to use each, in code that was run: [USAGE.md](USAGE.md).",
        "",
    ]
    parts += [
        "## Limits and license\n",
        "* What it makes of images unlike those it learned from isn't known. It knows no classes "
        "and no words.",
        "* No license was chosen: whose weights these are decides, and writes it in place of "
        "`unknown` at the top.",
        "* EXIF orientation has to be applied before it sees a photo.",
    ]
    return "\n".join(parts) + "\n"


def _network(config: Config) -> str:
    width = f" of width {config.encoder.width:g}" if config.encoder.width != 1 else ""
    return f"`{config.encoder.name}`{width} with `{config.encoder.normalization}` normalisation"


def _learned_from(facts: RunFacts) -> str:
    config, result = facts.config, facts.result
    start = (
        ""
        if config.encoder.weights is None
        else f" from the weights `{Path(config.encoder.weights).name}`"
    )
    if result is None:
        done = facts.rows[-1]["epoch"] if facts.rows else 0
        return (
            f"{method_name(config)}{start} on `{config.data.source}`, {done:g} of "
            f"{config.training.epochs} epochs so far."
        )
    return (
        f"{method_name(config)}{start} on {result['pretrain_images']:,} images of "
        f"`{config.data.source}`, {result['epochs']:g} epochs."
    )


def _figures(facts: RunFacts, figures: list[tuple[str, float, float]]) -> list[str]:
    config = facts.config
    lines = [
        "## How good it is\n",
        f"| accuracy on frozen features, `{config.data.source}` | {facts.start} | "
        f"{method_name(config)} |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {untrained:.1%} | {value:.1%} |" for name, untrained, value in figures]
    if facts.supervised is not None:
        lines.append(
            "| the same network from scratch, supervised on the same labels | | "
            f"{facts.supervised:.1%} |"
        )
    return [*lines, ""]


def _how_it_learned(facts: RunFacts) -> list[str]:
    config, result = facts.config, facts.result
    lines = [
        f"* Batches of {config.training.batch_size}, {config.optimizer.name}, views of "
        f"{config.views.size} px, seed {config.seed}, "
        f"computed in {config.devices.precision}; exported in float32."
    ]
    if result is not None:
        lines.append(
            f"* {result['steps']:,} steps in {result['seconds']:,.0f} s, "
            f"{result['images_per_second']:,.0f} images/s."
        )
    last = facts.rows[-1] if facts.rows else {}
    if {"loss", "projection_std", "effective_rank"} <= last.keys():
        lines.append(
            f"* At the end: loss {last['loss']:.3f}, spread of projections "
            f"{last['projection_std']:.2f} (1: scattered, "
            f"0: collapsed), effective rank of representations {last['effective_rank']:.1f}."
        )
    versions = facts.environment.get("packages", {})
    packages = ", ".join(
        f"{name} {version}"
        for name, version in versions.items()
        if name.startswith(("tensorflow", "keras", "numpy"))
    )
    python, images = (
        facts.environment.get("python", "unknown"),
        facts.environment.get("data_fingerprint", "unknown"),
    )
    lines.append(f"* byol_tf {__version__}, Python {python}, {packages}. Images: `{images}`.")
    return lines


def _files(export: Path) -> list[str]:
    proofs = read_proofs(export)
    lines = [
        "| file | MB | ms a photo | largest difference | smallest cosine | same neighbour |",
        "|---|---|---|---|---|---|",
    ]
    for form in FORMS:
        if (export / form.name).exists():
            lines.append(
                f"| `{form.name}`: {heading(form, proofs)} | {_measured(proofs.get(form.what))} |"
            )
    if not proofs:
        return [
            *lines,
            "",
            "Not yet compared with the run's own encoder: `python -m byol_tf.export --run ...` "
            "does it.",
        ]
    return [*lines, "", _HOW_MEASURED]


def _measured(proof: dict | None) -> str:
    if proof is None:
        return "- | - | - | - | -"
    same = "-" if proof["same_neighbour"] is None else f"{proof['same_neighbour']:.1%}"
    numbers = (
        f"{proof['megabytes']:.2f} | {proof['milliseconds']:.2f} | {proof['difference']:.1e} "
        f"| {proof['cosine']:.6f}"
    )
    return f"{numbers} | {same}"
