"""From a study to what has to be run and judged: a config and a command for each of its cells and
seeds."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError
from byol_tf.study.schema import Cell, Study


@dataclass(frozen=True)
class Planned:
    """A cell with one seed: which config is run, how it is judged.

    Attributes:
        cell: of the study.
        seed: of the run.
        config: of the run.
        changes: to the base of its scale, by dotted keys.
        words: of the command that judges it: protocol and options.
    """

    cell: Cell
    seed: int
    config: Config
    changes: dict[str, Any]
    words: tuple[str, ...]

    @property
    def run_name(self) -> str:
        """Names what was run by its config, so that a run that several cells or studies need is
        made once."""
        return run_name(self.config)


def run_name(config: Config) -> str:
    """The recipe's name and a digest of what a config says beyond the defaults, so that a key added
    later leaves older runs alone."""
    said = config.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"about", "schema_", "run"}
    )
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return f"{config.name}-{digest[:10]}"


def plan_study(
    file: Path,
    study: Study,
    scale: str,
    seeds: int | None,
    only: Sequence[str],
    overrides: Sequence[str],
) -> list[Planned]:
    """Every cell with every seed, all seeds of the first before the second ones: a study that is
    stopped has whole tables of fewer seeds.

    Args:
        file: of the study; a base may lie beside it.
        study: that is planned.
        scale: "small" or "paper".
        seeds: how many, in place of the scale's.
        only: rows; none for all.
        overrides: `KEY=VALUE` of the command line, after all others.

    Raises:
        ConfigError: if the study has no such scale or row, or a cell's changes don't fit its
            config: with the cell's row.
    """
    if scale not in study.scales:
        raise ConfigError([f"--scale {scale}: this study has {', '.join(study.scales)}"])
    cells = _cells(study, scale)
    rows = dict.fromkeys(cell.row for cell in cells)
    if unknown := [row for row in only if row not in rows]:
        raise ConfigError([f"--only {unknown[0]}: no such row; the study has {', '.join(rows)}"])
    cells = [cell for cell in cells if not only or cell.row in only]
    size = study.scales[scale]
    beside = file.parent / size.config
    base = beside if beside.is_file() else size.config
    planned: list[Planned] = []
    mistakes: dict[str, list[str]] = {}  # line -> rows
    for offset in range(seeds or size.seeds):
        for cell in cells:
            measure = study.measures[cell.measure]
            # The supervised baseline has no pre-training that could be varied.
            changes = {} if measure.protocol == "supervised" else _changes(study, cell, scale)
            try:
                config = _varied(base, size.changes | changes, offset, overrides)
            except ConfigError as error:
                for line in str(error).splitlines():
                    mistakes.setdefault(line, []).append(cell.row)
                continue
            planned.append(Planned(cell, config.seed, config, changes, measure.words(scale)))
    if mistakes:
        everywhere = {
            cell.row for cell in cells
        }  # what is wrong in all rows is wrong in what they share
        raise ConfigError(
            [
                f"{file.name}: {line}"
                if len(everywhere) > 1 and set(wrong) == everywhere
                else f'{file.name}, row "{row}": {line}'
                for line, wrong in mistakes.items()
                for row in dict.fromkeys(wrong if set(wrong) != everywhere else wrong[:1])
            ]
        )
    return planned


def _cells(study: Study, scale: str) -> list[Cell]:
    """The cells of a scale, each with its measure, followed by what it is also judged by."""
    cells = []
    for cell in study.cells:
        if scale not in cell.scales:
            continue
        measure = cell.measure or next(iter(study.measures))
        cells.append(cell.model_copy(update={"measure": measure}))
        if study.measures[measure].protocol == "supervised":
            continue
        for other in study.scales[scale].also:
            column = f"{cell.column}, {other}" if cell.column else other
            cells.append(
                cell.model_copy(
                    update={"measure": other, "column": column, "paper": None, "paper_says": None}
                )
            )
    return cells


def _changes(study: Study, cell: Cell, scale: str) -> dict[str, Any]:
    """What a cell changes of the base of a scale."""
    changes: dict[str, Any] = {}
    for part in (study.systems.get(cell.system), cell):
        if part is not None:
            changes |= part.changes | (part.small if scale == "small" else {})
    return changes


def _varied(
    base: str | Path, changes: dict[str, Any], offset: int, overrides: Sequence[str]
) -> Config:
    texts = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    config = load_config(base, [*texts, *overrides])
    return (
        config
        if offset == 0
        else load_config(base, [*texts, *overrides, f"seed={config.seed + offset}"])
    )
