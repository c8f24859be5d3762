"""Schema of a study: one table of a paper as a JSON file.

It has the base config, what is varied, how runs are evaluated, and the paper's figures.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from byol_tf.config.docs import json_schema
from byol_tf.config.loading import read_object
from byol_tf.config.messages import format_value
from byol_tf.config.types import Count, Section, Text
from byol_tf.errors import ConfigError

_STUDIES = Path(__file__).resolve().parents[2] / "configs" / "studies"
ScaleName = Literal["small", "paper"]
SCALES: tuple[ScaleName, ...] = ("small", "paper")

Word = Annotated[str, Field(min_length=1, max_length=40)]


class Scale(Section):
    """A size at which the study can be run."""

    config: Text
    """The base: a recipe's name, or a config's path beside the study."""
    changes: dict[str, Any] = Field(default_factory=dict, alias="set")
    """Changes to the base, by dotted keys, before those of a cell."""
    seeds: Count = 1
    """Repetitions, each with a seed of its own: the base's, the next one and so on."""
    also: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Names of `measures` by which the run of every pre-trained cell is evaluated besides its own,
    each in a column of its own."""
    budget: Text
    """What it takes, and what it can and can't show. Printed above the table."""


FIGURES = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class"}
"""The accuracies of `Measure.figure`, as tables and figures name them."""


class Measure(Section):
    """Evaluation of a run: a protocol of `byol evaluate`."""

    protocol: Literal["linear", "knn", "transfer", "semi-supervised", "finetune", "supervised"]
    """Its name. `supervised` trains the network of the base's first run from scratch, so that no
    pre-training of a cell matters to it."""
    options: Annotated[tuple[Word, ...], Field(strict=False)] = ()
    """Further arguments of that command: `["--fraction", "0.125"]`."""
    small: Annotated[tuple[Word, ...] | None, Field(strict=False)] = None
    """In place of `options` at small scale. Default: the same."""
    figure: Literal["top1", "top5", "mean_per_class"] = "top1"
    """The accuracy of its `result.json` that is compared with the paper's. `mean_per_class`, the
    mean of the classes' own accuracies, is measured by `transfer` and `linear --fast` alone."""

    def words(self, scale: ScaleName) -> tuple[str, ...]:
        """Returns the protocol and its options at a scale."""
        return (
            self.protocol,
            *(self.small if scale == "small" and self.small is not None else self.options),
        )


class System(Section):
    """Changes that several cells share: SimCLR beside BYOL."""

    changes: dict[str, Any] = Field(default_factory=dict, alias="set")
    """By dotted keys, after those of the scale and before those of the cell."""
    small: dict[str, Any] = Field(default_factory=dict)
    """Further changes at small scale."""


class Cell(Section):
    """One figure of the table."""

    row: Text
    """Its row."""
    column: str = ""
    """Its column, where the table has several."""
    system: str | None = None
    """A name of `systems`. Default: the scale's base as it is."""
    changes: dict[str, Any] = Field(default_factory=dict, alias="set")
    """What differs from the base, by dotted keys."""
    small: dict[str, Any] = Field(default_factory=dict)
    """Further changes at small scale, such as a batch that so few images still fill."""
    scales: Annotated[tuple[ScaleName, ...], Field(strict=False)] = SCALES
    """At which scales the table has it: a few thousand photos fill no batch of 4096."""
    measure: str | None = None
    """A name of `measures`. Default: the first."""
    paper: float | None = None
    """The paper's figure in %. null: it gives none."""
    paper_says: str | None = None
    """What the paper says instead of a figure, or beside it."""

    @property
    def place(self) -> str:
        """The row and column, as messages name the cell."""
        return f"{self.row} / {self.column}" if self.column else self.row


Number = int | float


class Range(Section):
    """Numbers from which a search samples; whole ones if both ends are."""

    low: Number
    """The lowest."""
    high: Number
    """The highest."""
    log: bool = False
    """True samples orders of magnitude equally often, as suits learning rates."""


Domain = Range | Annotated[tuple[Any, ...], Field(min_length=1, strict=False)]


class Search(Section):
    """The settings that `--search` varies, in place of the cells."""

    changes: dict[str, Any] = Field(default_factory=dict, alias="set")
    """Changes to the scale's base, by dotted keys, after its own."""
    space: Annotated[dict[str, Domain], Field(min_length=1)]
    """Dotted key -> the range, or the list of values, that it is sampled from."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How trials are sampled: the tree-structured Parzen estimator, which learns from the trials
    before, or at random."""
    pruner: Literal["successive_halving", "none"] = "successive_halving"
    """Whether trials end early that are below the best third at 1, 3, 9 ... times `min_epochs`
    epochs (asynchronous successive halving, Li et al. 2020)."""
    min_epochs: Count = 1
    """Epochs that each trial gets."""


class Study(Section):
    """One table."""

    schema_: Annotated[str | None, Field(alias="$schema")] = None
    """Where editors find the types of these keys."""
    title: Text
    """Above table and figures."""
    source: Text
    """Paper and table."""
    question: Text
    """What the table answers."""
    measures: Annotated[dict[str, Measure], Field(min_length=1)]
    """Names, and how each is measured; the first is the default of all cells."""
    systems: dict[str, System] = Field(default_factory=dict)
    """Names, and what they change of a scale's base."""
    scales: dict[ScaleName, Scale]
    """How large."""
    cells: Annotated[tuple[Cell, ...], Field(min_length=1, strict=False)]
    """The table's figures, in the order of its rows."""
    search: Search | None = None
    """What `--search` samples settings from."""


def packaged_studies() -> list[str]:
    """Returns the names of the packaged studies."""
    return sorted(file.stem for file in _STUDIES.glob("*.json") if file.name != "schema.json")


def study_schema_json() -> str:
    """Returns the JSON schema of a study, as `configs/studies/schema.json` has it."""
    return json_schema(Study)


def load_study(path: str) -> tuple[str, Path, Study]:
    """Reads and checks a study.

    Args:
        path: a file; one that doesn't exist may name a packaged study,
            `configs/studies/stl10-table2.json` or `stl10-table2`.

    Returns:
        The study's name, its file and the study.

    Raises:
        ConfigError: with every mistake, one on each line.
    """
    file = Path(os.path.expanduser(path))
    if (
        not os.path.isfile(file)
        and str(file.parent) in (".", "configs/studies")
        and file.stem in packaged_studies()
    ):
        file = _STUDIES / f"{file.stem}.json"
    if not os.path.isfile(file):
        raise ConfigError(
            f"{path}: no such study; those of the package are {', '.join(packaged_studies())}"
        )
    tree, repeats = read_object(path, file)
    lines = [
        f"{path}: {'.'.join(key)}: expected once; received {len(values)} times"
        for key, values in repeats
    ]
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        lines += [_line(path, each) for each in error.errors(include_url=False)]
        raise ConfigError(*lines) from None
    lines += [
        f'{path}: measures.{name}.figure: expected "top1" or "top5", as only transfer and '
        f"linear --fast measure mean_per_class; received it for {' '.join(measure.words(scale))}"
        for name, measure in study.measures.items()
        for scale in study.scales
        if measure.figure == "mean_per_class"
        and measure.protocol != "transfer"
        and not (measure.protocol == "linear" and "--fast" in measure.words(scale))
    ]
    for number, cell in enumerate(study.cells):
        lines += _unknown(f"{path}: cells.{number}.measure", cell.measure, study.measures)
        lines += _unknown(f"{path}: cells.{number}.system", cell.system, study.systems)
    for name, scale in study.scales.items():
        lines += [
            line
            for other in scale.also
            for line in _unknown(f"{path}: scales.{name}.also", other, study.measures)
        ]
    lines += [
        f"{path}: search.space.{key}: expected low below high{' and above 0' * domain.log}; "
        f"received {domain.low:g} and {domain.high:g}"
        for key, domain in (study.search.space.items() if study.search else ())
        if isinstance(domain, Range)
        and not (domain.low < domain.high and (domain.low > 0 or not domain.log))
    ]
    places = [(cell.row, cell.column) for cell in study.cells]
    lines += [
        f"{path}: cells.{number}: there is another cell with this row and column"
        for number, place in enumerate(places)
        if place in places[:number]
    ]
    if lines:
        raise ConfigError(*lines)
    return file.stem, file, study


def _unknown(where: str, name: str | None, known: Collection[str]) -> list[str]:
    if name is None or name in known:
        return []
    return [
        f"{where}: expected one of {', '.join(known) or 'none, as there are none'}; received "
        f"{format_value(name)}"
    ]


def _line(path: str, error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    received = (
        ""
        if error["type"] in ("missing", "extra_forbidden")
        else f"; received {format_value(error['input'])}"
    )
    text = {"missing": "missing", "extra_forbidden": "unknown key"}.get(
        error["type"], error["msg"][:1].lower() + error["msg"][1:]
    )
    return f"{path}: {where}: {text}{received}"
