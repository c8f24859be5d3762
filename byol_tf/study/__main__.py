"""`python -m byol_tf.study`: a table of a paper, its runs and its figures; resumable."""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("study")


import argparse
import json
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from byol_tf.command_line import check_writable, command_parser, ends_with_exit_code, program
from byol_tf.devices import prepare_environment
from byol_tf.errors import SAVES_FAILED
from byol_tf.study.plan import PlannedCell, plan_study
from byol_tf.study.runner import Stopped, StudyRunner
from byol_tf.study.schema import SCALES, ScaleName, Study, load_study, packaged_studies

_SOME_FAILED = 1
_DRAW_SECONDS = 120.0
"""Age at which the figures are drawn again while a study runs."""


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Runs the command.

    Args:
        arguments: of the command line; None for those of this process.

    Returns:
        The exit code: 0; 1 if a run or an evaluation failed; 2 with a message if the study, its
        images or a folder to write are wrong; 74 if the table couldn't be written, which is
        printed then; 128 + n after signal n.
    """
    options = _parser().parse_args(arguments)
    if options.study is None:
        for name in packaged_studies():
            print(f"{name:<21} {load_study(name)[2].title}")
        return 0
    name, file, study = load_study(options.study)
    planned = plan_study(file, study, options.scale, options.seeds, options.only, options.overrides)
    root = Path(options.root)
    out = Path(options.out) if options.out else root / f"{name}-{options.scale}"
    if options.list:
        _list(study, planned, StudyRunner(root / "runs"))
        return 0
    _check_photos(planned)
    check_writable(root, "--root")
    check_writable(out, "--out")
    prepare_environment()  # or each command would report that TensorFlow is missing
    command = shlex.join([*program("study").split(), *arguments])
    return _run(study, planned, root, out, options.scale, command, options.overrides)


def _check_photos(planned: Sequence[PlannedCell]) -> None:
    """Raises `SourceError` for a folder without photos, once for all cells."""
    from byol_tf.runs.sources import source_options
    from pipelines.sources import plan_source

    configs = {cell.config.data: cell.config for cell in planned}
    for data, config in configs.items():
        if data.source == "folder":
            plan_source(**source_options(config))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        prog=program("study"),
        description="Runs what is missing of a table, and draws it.",
    )
    parser.add_argument(
        "study",
        nargs="?",
        metavar="STUDY",
        help="a study file, or the name of a packaged one (without: their names)",
    )
    parser.add_argument(
        "--scale",
        choices=SCALES,
        default="small",
        help="small: few photos, a narrow network; paper: the paper's own (default: small)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        choices=range(1, 101),
        metavar="N",
        help="repetitions (default: the study's)",
    )
    parser.add_argument(
        "--only",
        metavar="ROW",
        action="append",
        default=[],
        help="only this row; may be given again",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="for all runs: data.root=photos",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=os.path.expanduser,
        default="runs/studies",
        help="where all studies keep their runs (default: runs/studies)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=os.path.expanduser,
        help="where table and figures go (default: ROOT/<study>-<scale>)",
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="print what the study has and what of it is done, and run nothing",
    )
    return parser


def _list(study: Study, planned: list[PlannedCell], runs: StudyRunner) -> None:
    print(f"{study.title}\n{study.question}\n")
    for cell in planned:
        state = "done" if runs.done(cell) else "-"
        changes = ", ".join(f"{key}={json.dumps(value)}" for key, value in cell.changes.items())
        print(
            f"{state:<5} seed {cell.seed:<3} {cell.cell.measure:<12} {cell.cell.place:<44} "
            f"{changes}"
        )


def _run(
    study: Study,
    planned: list[PlannedCell],
    root: Path,
    out: Path,
    scale: ScaleName,
    command: str,
    overrides: Sequence[str],
) -> int:
    """Runs what is missing, writes the report after each cell; returns the exit code."""
    from byol_tf.study.progress import StudyProgress
    from byol_tf.study.report import draw_report, report_table, write_report

    errors: dict[int, str] = {}  # by position in `planned`
    drawn = time.monotonic()
    runs = StudyRunner(root / "runs")
    waiting = [(number, cell) for number, cell in enumerate(planned) if not runs.done(cell)]
    needs_training = runs.needs_training([cell for _, cell in waiting])
    with StudyProgress(study.title, len(planned), needs_training) as progress, runs:
        runs.on_progress = progress.update

        def report(draw: bool) -> tuple[str, int]:
            """Writes the report of what is done; returns its table, and the exit code so far."""
            nonlocal drawn
            outcomes = [
                runs.outcome(cell, errors.get(number, "")) for number, cell in enumerate(planned)
            ]
            code = _SOME_FAILED if any(outcome.error for outcome in outcomes) else 0
            try:
                write_report(out, study, scale, outcomes, command, overrides)
                if draw or time.monotonic() - drawn > _DRAW_SECONDS:
                    draw_report(out, study, outcomes)
                    drawn = time.monotonic()
            except OSError as error:  # a full disk, say: runs that have space go on
                progress.print(f"warning: --out {out}: can't be written: {error.strerror or error}")
                code = SAVES_FAILED
            return report_table(study, outcomes), code

        for number, cell in waiting:
            name = f"{cell.cell.place}, seed {cell.seed}"
            began = time.perf_counter()
            progress.begin(name)
            try:
                error = runs.run(cell)
            except OSError as failure:
                error = f"{failure.filename}: {failure.strerror or failure}"
            except Stopped as stopped:
                report(draw=True)
                progress.print(f"stopped by {stopped}. To resume:\n  {command}")
                return 128 + stopped.number
            if error:
                errors[number] = error
                progress.print(f"FAILED: {name}: {error}. The other cells are run")
            progress.end(None if error else time.perf_counter() - began)
            report(draw=False)
        text, code = report(draw=True)
    names = ("table.md", "table.csv", "table.tex", "results.csv", "bars.png", "curves.png")
    files = [out / name for name in names]
    print(f"\n{text}\n{', '.join(str(file) for file in files if file.exists())}")
    return code
