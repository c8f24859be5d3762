"""The model card of a run's exports: what was learned from what, how good it is, how near each file is."""

import contextlib
import json
from pathlib import Path

from byol_tf import __version__
from byol_tf.config import Config
from byol_tf.exporting.card_parts import front_matter, preparation
from byol_tf.exporting.forms import FORMS
from byol_tf.exporting.record import read_proofs
from byol_tf.history_file import read_history
from byol_tf.plan import system_of
from byol_tf.run_folder import RunFolder, write_atomically

_HOW_MEASURED = """Each was loaded where byol_tf isn't and compared with the run's own encoder, on a CPU, one photo at a time: photos of odd
sizes, and images of the run's source for the neighbours. The difference is a share of the largest value of all representations."""
_ACCURACIES = (("linear probe", "probe_accuracy"), ("nearest neighbours", "knn_accuracy"))


def write_card(config: Config, folder: RunFolder, result: dict | None) -> None:
    """Writes `README.md` into a run's export folder from the run's facts.

    Args:
        config: of the run.
        folder: of the run.
        result: what `result.json` holds or will hold; None where the run isn't finished.
    """
    write_atomically(folder.export / "README.md", _card(config, folder, result))


def _card(config: Config, folder: RunFolder, result: dict | None) -> str:
    rows = []
    with contextlib.suppress(OSError, ValueError):
        rows = read_history(folder.history)
    last = rows[-1] if rows else {}
    figures = [
        (name, rows[0][key], value) for name, key in _ACCURACIES if rows and key in rows[0] and (value := _newest(rows, key)) is not None
    ]
    dataset = config.data.source
    metrics = [("accuracy", f"{name} on frozen features", value) for name, _, value in figures]
    parts = [
        front_matter(config.name, [system_of(config).lower(), config.encoder.name], metrics, dataset),
        f"# {config.name}\n",
        f"An image encoder, {_network(config)}, trained without labels: {_learned_from(config, result, last)}\n",
        "* Images `[N, H, W, 3]` of any size, 0 to 255, in; float32 representations `[N, d]` out.",
        f"* {preparation(config.views)}\n",
    ]
    if figures:
        parts += _figures(config, figures, result)
    parts += ["## How it learned\n", *_facts(config, folder, result, last), ""]
    parts += ["## Files\n", *_files(folder.export), "", "How to use each, in code that was run: [USAGE.md](USAGE.md).", ""]
    parts += [
        "## Limits and license\n",
        "* What it makes of images unlike those it learned from isn't known. It knows no classes and no words.",
        "* No license was chosen: whose weights these are decides, and writes it in place of `unknown` at the top.",
        "* EXIF orientation has to be applied before it sees a photo.",
    ]
    return "\n".join(parts) + "\n"


def _newest(rows: list[dict[str, float]], key: str) -> float | None:
    return next((row[key] for row in reversed(rows) if key in row), None)


def _network(config: Config) -> str:
    width = f" of width {config.encoder.width:g}" if config.encoder.width != 1 else ""
    return f"`{config.encoder.name}`{width} with `{config.encoder.normalization}` normalisation"


def _learned_from(config: Config, result: dict | None, last: dict[str, float]) -> str:
    start = "" if config.encoder.weights is None else f" from the weights `{Path(config.encoder.weights).name}`"
    if result is None:
        return f"{system_of(config)}{start} on `{config.data.source}`, {last.get('epoch', 0):g} of {config.training.epochs} epochs so far."
    return f"{system_of(config)}{start} on {result['pretrain_images']:,} images of `{config.data.source}`, {result['epochs']:g} epochs."


def _figures(config: Config, figures: list[tuple[str, float, float]], result: dict | None) -> list[str]:
    start = "untrained" if config.encoder.weights is None else "at start"
    lines = [
        "## How good it is\n",
        f"| accuracy on frozen features, `{config.data.source}` | {start} | {system_of(config)} |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {untrained:.1%} | {value:.1%} |" for name, untrained, value in figures]
    if result is not None and result.get("supervised_accuracy") is not None:
        lines.append(f"| the same network from scratch, supervised on the same labels | | {result['supervised_accuracy']:.1%} |")
    return [*lines, ""]


def _facts(config: Config, folder: RunFolder, result: dict | None, last: dict[str, float]) -> list[str]:
    training, optimizer = config.training, config.optimizer
    lines = [
        f"* Batches of {training.batch_size}, {optimizer.name}, views of {config.views.size} px, seed {config.seed}, "
        f"computed in {config.devices.precision}; exported in float32."
    ]
    if result is not None:
        lines.append(f"* {result['steps']:,} steps in {result['seconds']:,.0f} s, {result['images_per_second']:,.0f} images/s.")
    if "projection_std" in last:
        lines.append(
            f"* At the end: loss {last.get('loss', float('nan')):.3f}, spread of projections {last['projection_std']:.2f} (1: scattered, "
            f"0: collapsed), effective rank of representations {last['effective_rank']:.1f}."
        )
    with contextlib.suppress(OSError, ValueError, KeyError):
        facts = json.loads(folder.environment.read_text(encoding="utf-8"))
        packages = [f"{name} {version}" for name, version in facts["packages"].items() if name.startswith(("tensorflow", "keras", "numpy"))]
        lines.append(f"* byol_tf {__version__}, Python {facts['python']}, {', '.join(packages)}. Images: `{facts['data_fingerprint']}`.")
    return lines


def _files(export: Path) -> list[str]:
    proofs = read_proofs(export)
    lines = ["| file | MB | ms a photo | largest difference | smallest cosine | same neighbour |", "|---|---|---|---|---|---|"]
    for form in FORMS:
        if (export / form.name).exists():
            lines.append(f"| `{form.name}`: {form.what} | {_measured(proofs.get(form.what))} |")
    if not proofs:
        return [*lines, "", "Not yet compared with the run's own encoder: `python -m byol_tf.export --run ...` does it."]
    return [*lines, "", _HOW_MEASURED]


def _measured(proof: dict | None) -> str:
    if proof is None:
        return "- | - | - | - | -"
    same = "-" if proof["same_neighbour"] is None else f"{proof['same_neighbour']:.1%}"
    numbers = f"{proof['megabytes']:.2f} | {proof['milliseconds']:.2f} | {proof['difference']:.1e} | {proof['cosine']:.6f}"
    return f"{numbers} | {same}"
