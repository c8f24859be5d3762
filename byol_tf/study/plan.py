"""The plan of a study: a config and an evaluation command for each cell and seed."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byol_tf.config.diff import SAME_STEPS
from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError
from byol_tf.study.schema import Cell, ScaleName, Study


@dataclass(frozen=True)
class PlannedCell:
    """A cell with one seed: the config that is run, and how it is evaluated.

    Attributes:
        cell: the cell of the study.
        seed: of the run.
        config: of the run.
        changes: to the base of its scale, by dotted keys.
        words: arguments of `byol_tf.evaluate`: the protocol and its options.
        figure: the key of its `result.json` that is compared.
    """

    cell: Cell
    seed: int
    config: Config
    changes: dict[str, Any]
    words: tuple[str, ...]
    figure: str = "top1"

    @property
    def run_name(self) -> str:
        """The run's name by its config: a run that several cells or studies need is made once."""
        return run_name(self.config)


def run_name(config: Config) -> str:
    """Returns the recipe's name and a digest of what a config changes of the defaults.

    Keys with which a run may be resumed aren't part of it: a study that was stopped goes on with
    them. A key that is added later, with its default, leaves the names of older runs as they are.
    """
    changed = config.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"about", "schema_", "run"}
    )
    for key in SAME_STEPS:
        section, name = key.split(".")
        changed.get(section, {}).pop(name, None)
    changed = {name: value for name, value in changed.items() if value != {}}
    if config.run.export != "last":
        changed["run"] = {"export": config.run.export}
    digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()
    return f"{config.name}-{digest[:10]}"


def plan_study(
    file: Path,
    study: Study,
    scale: ScaleName,
    seeds: int | None,
    only: Sequence[str],
    overrides: Sequence[str],
) -> list[PlannedCell]:
    """Plans every cell with every seed, the first seed of all cells before the second ones.

    A study that is stopped then has complete tables of fewer seeds.

    Args:
        file: the study's file; a base config may be in its folder.
        study: the study.
        scale: "small" or "paper".
        seeds: number of seeds, in place of the scale's.
        only: rows to plan; empty for all.
        overrides: `KEY=VALUE` of the command line, applied after all others.

    Raises:
        ConfigError: if the study has no such scale or row, or a cell's changes don't fit its
            config: with the cell's row.
    """
    base, base_changes = base_config(file, study, scale)
    cells = _cells(study, scale)
    rows = dict.fromkeys(cell.row for cell in cells)
    if unknown := [row for row in only if row not in rows]:
        names = ", ".join(f'"{row}"' for row in rows)  # a name may have commas
        raise ConfigError(f"--only {unknown[0]}: no such row; the study has {names}")
    cells = [cell for cell in cells if not only or cell.row in only]
    planned: list[PlannedCell] = []
    rows_of_error: dict[str, list[str]] = {}  # a line of an error -> the rows that have it
    for offset in range(seeds or study.scales[scale].seeds):
        for cell in cells:
            measure = study.measures[cell.measure or next(iter(study.measures))]
            # The supervised baseline has no pre-training that could be varied.
            changes = {} if measure.protocol == "supervised" else _changes(study, cell, scale)
            try:
                config = _varied(base, base_changes | changes, offset, overrides)
            except ConfigError as error:
                for line in str(error).splitlines():
                    rows_of_error.setdefault(line, []).append(cell.row)
                continue
            planned.append(
                PlannedCell(
                    cell, config.seed, config, changes, measure.words(scale), measure.figure
                )
            )
    if rows_of_error:
        # An error of all rows is one of what they share, and is reported once, without a row.
        all_rows = {cell.row for cell in cells}
        lines = []
        for line, wrong in rows_of_error.items():
            if len(all_rows) > 1 and set(wrong) == all_rows:
                lines.append(f"{file.name}: {line}")
            else:
                lines += [f'{file.name}, row "{row}": {line}' for row in dict.fromkeys(wrong)]
        raise ConfigError(*lines)
    return planned


def base_config(file: Path, study: Study, scale: ScaleName) -> tuple[str | Path, dict[str, Any]]:
    """Returns the base of a scale, a file or a recipe's name, and the scale's changes to it.

    Args:
        file: the study's file; the base may be in its folder.
        study: the study.
        scale: "small" or "paper".

    Raises:
        ConfigError: if the study has no such scale.
    """
    if scale not in study.scales:
        raise ConfigError(f"--scale {scale}: this study has {', '.join(study.scales)}")
    size = study.scales[scale]
    own_base = file.parent / size.config
    return own_base if own_base.is_file() else size.config, size.changes


def _cells(study: Study, scale: ScaleName) -> list[Cell]:
    """Returns the cells of a scale, each followed by those of its further measures."""
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


def _changes(study: Study, cell: Cell, scale: ScaleName) -> dict[str, Any]:
    """Returns what a cell changes of the base of a scale."""
    changes: dict[str, Any] = {}
    for owner in (study.systems.get(cell.system or ""), cell):
        if owner is not None:
            changes |= owner.changes | (owner.small if scale == "small" else {})
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
