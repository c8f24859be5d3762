"""`python -m byol_tf.study`: a table of a paper, its runs and its figures; resumable."""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("study")


import argparse
import functools
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from byol_tf.command_line import (
    add_path,
    add_set_option,
    check_writable,
    command_parser,
    command_text,
    ends_with_exit_code,
    os_error_text,
    positive_float,
    positive_int,
)
from byol_tf.devices import prepare_environment
from byol_tf.errors import SAVES_FAILED
from byol_tf.study.plan import PlannedCell, plan_study
from byol_tf.study.runner import Stopped, StudyRunner, Task, run_side_by_side
from byol_tf.study.schema import SCALES, Study, load_study, packaged_studies
from pipelines.registry import SOURCES

if TYPE_CHECKING:
    from byol_tf.study.search import SearchPlan, SearchRunner

_SOME_FAILED = 1
_FAILURES = 3
"""Failed trials in a row that end a search: then the settings aren't the reason."""
_DRAW_SECONDS = 120.0
"""Age at which the figures are drawn again while a study runs."""


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 1 if a run or an evaluation failed; 2 with a message if the study, its
        images or a folder to write are wrong; 74 if the table couldn't be written, which is
        printed then; 128 + n after signal n.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.search is None and options.minutes is not None:
        parser.error("--minutes: is for --search")
    if options.search is not None and (
        options.seeds or options.only or options.list or options.jobs > 1
    ):
        parser.error("--search: takes neither --seeds nor --only nor --jobs nor --list")
    if options.study is None:
        for name in packaged_studies():
            print(f"{name:<21} {load_study(name)[2].title}")
        return 0
    name, file, study = load_study(options.study)
    if options.search is not None:
        try:
            return _search(name, file, study, options, arguments)
        except OSError as error:  # a full disk, say
            print(
                f"stopped: {os_error_text(error)}. The same command resumes the search",
                file=sys.stderr,
            )
            return SAVES_FAILED
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
    command = command_text("study", arguments)
    return _run(study, planned, root, out, options, command)


def _check_photos(planned: Sequence[PlannedCell]) -> None:
    """Raises `SourceError` where no photos are found, once for all cells."""
    from byol_tf.runs.sources import source_options
    from pipelines.sources import plan_source

    configs = {cell.config.data: cell.config for cell in planned}
    for data, config in configs.items():
        if SOURCES[data.source].root:
            plan_source(**source_options(config))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "study",
        description="Makes the runs of a paper's table that are missing, and writes the table.",
    )
    parser.add_argument(
        "study",
        nargs="?",
        metavar="STUDY",
        help="a study file, or the name of a packaged one (if left out: lists their names)",
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
        "--jobs",
        type=positive_int,
        default=1,
        metavar="N",
        help="number of runs at a time, each in a process of its own (default: 1)",
    )
    add_set_option(parser, "for all runs: data.root=photos")
    add_path(
        parser,
        "--root",
        "where all studies keep their runs (default: runs/studies)",
        default="runs/studies",
    )
    add_path(parser, "--out", "where table and figures go (default: ROOT/<study>-<scale>)")
    parser.add_argument(
        "--list",
        action="store_true",
        help="print what the study has and what of it is done, and run nothing",
    )
    parser.add_argument(
        "--search",
        type=positive_int,
        metavar="N",
        help="sample N trials from the study's search space, by held-out training labels",
    )
    parser.add_argument(
        "--minutes",
        type=positive_float,
        metavar="M",
        help="stop --search after M minutes; the same command resumes it",
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
    options: argparse.Namespace,
    command: str,
) -> int:
    """Runs what is missing, writes the report after each cell; returns the exit code."""
    from byol_tf.study.progress import StudyProgress
    from byol_tf.study.report import draw_report, report_table, write_report

    errors: dict[int, str] = {}  # by position in `planned`
    drawn = time.monotonic()
    runs = StudyRunner(root / "runs", options.jobs)
    waiting = [number for number, cell in enumerate(planned) if not runs.done(cell)]
    trains = dict(
        zip(waiting, runs.needs_training([planned[number] for number in waiting]), strict=True)
    )
    shown = StudyProgress(study.title, len(planned), Counter(trains.values()), options.jobs)
    with shown as progress, runs:

        def report(draw: bool) -> tuple[str, int]:
            """Writes the report of what is done; returns its table, and the exit code so far."""
            nonlocal drawn
            outcomes = [
                runs.outcome(cell, errors.get(number, "")) for number, cell in enumerate(planned)
            ]
            code = _SOME_FAILED if any(outcome.error for outcome in outcomes) else 0
            try:
                write_report(out, study, options.scale, outcomes, command, options.overrides)
                if draw or time.monotonic() - drawn > _DRAW_SECONDS:
                    draw_report(out, study, outcomes)
                    drawn = time.monotonic()
            except OSError as error:  # a full disk, say: runs that have space go on
                progress.print(f"warning: --out {out}: can't be written: {error.strerror or error}")
                code = SAVES_FAILED
            return report_table(study, outcomes), code

        def run_cells(numbers: list[int]) -> Task:
            """Runs the cells of one run, one after the other."""
            for number in numbers:
                cell = planned[number]
                name, began = f"{cell.cell.place}, seed {cell.seed}", time.perf_counter()
                progress.begin(name, trains[number])
                try:
                    error = yield from runs.run(cell, functools.partial(progress.update, name))
                except OSError as failure:
                    error = os_error_text(failure)
                if error:
                    errors[number] = error
                    progress.print(f"FAILED: {name}: {error}. The other cells are run")
                progress.end(name, None if error else time.perf_counter() - began)
                report(draw=False)
            return ""

        by_run: dict[str, list[int]] = {}
        for number in waiting:
            by_run.setdefault(planned[number].run_name, []).append(number)
        try:
            run_side_by_side(map(run_cells, by_run.values()), options.jobs)
        except Stopped as stopped:
            report(draw=True)
            progress.print(f"stopped by {stopped}. To resume:\n  {command}")
            return 128 + stopped.number
        text, code = report(draw=True)
    tables = ("table.md", "table.csv", "table.tex", "results.csv")
    files = [out / name for name in (*tables, "bars.png", "curves.png", "tuning.png")]
    print(f"\n{text}\n{', '.join(str(file) for file in files if file.exists())}")
    return code


def _search(
    name: str, file: Path, study: Study, options: argparse.Namespace, arguments: list[str]
) -> int:
    """Runs trials until there are as many as asked for, or the time is over."""
    from byol_tf.runs.best_epoch import check_metric
    from byol_tf.runs.lock import RunLock
    from byol_tf.runs.sources import source_options
    from byol_tf.study.progress import StudyProgress
    from byol_tf.study.search import SearchRunner, plan_search
    from byol_tf.study.search_report import search_text
    from pipelines.sources import plan_source

    began = time.monotonic()
    plan = plan_search(file, study, options.scale, options.overrides)
    check_metric(plan.config, plan_source(**source_options(plan.config)).counts["train"] > 0)
    root = Path(options.root)
    out = Path(options.out) if options.out else root / f"{name}-{options.scale}-search"
    check_writable(root, "--root")
    check_writable(out, "--out")
    prepare_environment()
    command = command_text("study", arguments)
    deadline = began + 60 * (options.minutes or float("inf"))
    runs, failures = StudyRunner(root / "runs"), 0
    with RunLock(out, "search", "Wait for it, or end it there") as lock:
        search = SearchRunner(plan, out, runs, deadline)

        def write() -> str:
            lock.check_owner()
            return _write_search(out, study, plan, search, command)

        left = Counter({True: max(0, options.search - search.finished)})
        title = f"{study.title}: search"
        try:
            with StudyProgress(title, options.search, left) as progress, runs:
                while search.finished < options.search and failures < _FAILURES:
                    if search.out_of_time:
                        progress.print("the time is over; the same command resumes the search")
                        break
                    try:
                        state = search.run_trial(progress)
                    except Stopped as stopped:
                        progress.print(f"stopped by {stopped}. To resume:\n  {command}")
                        write()
                        return 128 + stopped.number
                    failures = failures + 1 if state == "failed" else 0
                    write()
            print(write())
        except OSError:
            print(f"\n{search_text(plan, search.results())}")
            raise
    return _SOME_FAILED if any(each.error for each in search.results()) else 0


def _write_search(
    out: Path, study: Study, plan: "SearchPlan", search: "SearchRunner", command: str
) -> str:
    """Writes the report; returns what the command prints of it."""
    from byol_tf.study.search_figure import parallel_figure
    from byol_tf.study.search_report import search_text, write_search_report

    results = search.results()
    write_search_report(out, study, plan, results, command)
    if any(each.value is not None for each in results):
        parallel_figure(out / "parallel.png", study.title, plan, results)
    names = ("table.md", "table.csv", "table.tex", "parallel.png", "best.json")
    files = [out / name for name in names]
    return (
        f"\n{search_text(plan, results)}\n{', '.join(str(file) for file in files if file.exists())}"
    )
