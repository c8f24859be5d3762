"""`python -m byol_tf.train`: pre-trains an encoder, probes it and exports it."""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("train")


import argparse
import contextlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from byol_tf.clusters import Cluster, read_cluster
from byol_tf.command_line import (
    add_json_option,
    add_path,
    add_set_option,
    check_writable,
    command_parser,
    ends_with_exit_code,
    print_json,
    program,
)
from byol_tf.config.docs import explain, sections_help
from byol_tf.config.fields import SECTIONS
from byol_tf.config.loading import absolute_paths, load_config, recipes, resolved_json
from byol_tf.config.schema import Config
from byol_tf.devices import prepare_environment
from byol_tf.errors import USAGE_ERROR, Interrupted, RunStopped
from byol_tf.logs import ProgressLog, activity, configure_logging
from byol_tf.runs.best_epoch import stops_early
from byol_tf.runs.folder import RESULT_FIGURES, RunFolder, read_history
from byol_tf.runs.folder_choice import choose_folder, claimed_folder
from byol_tf.runs.lock import RunLock
from byol_tf.train.closing import closing_text
from byol_tf.train.signals import SignalWatch
from pipelines.registry import SOURCES

logger = logging.getLogger(__name__)

if TYPE_CHECKING:  # it imports TensorFlow, which a mistake in the config needn't wait for
    from byol_tf.train.multi_worker import Workers


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 2, with a message and nothing written, if config, images, devices or
        folder are wrong; 128 + n after signal n, once the run has saved; 75 if another worker was
        lost; or one of `errors.py`.
    """
    options = _parser().parse_args(arguments)
    if options.explain is not None:
        return _explain(options.explain)
    with SignalWatch(None):
        try:
            return _run(options, arguments)
        except (Interrupted, RunStopped) as stopped:  # reported where it was raised
            return stopped.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "train",
        keys=[".".join((*section, name)) for section, keys in SECTIONS.items() for name in keys],
        recipes=recipes(),
        description="Pre-trains an encoder with BYOL and exports it.",
        epilog=f"packaged recipes for --config:\n  {', '.join(recipes())}\n\nsections of a config, "
        f"whose keys --set changes:\n{sections_help()}\nall keys of one, with meanings: --explain "
        "SECTION",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the experiment, a JSON file or the name of a packaged recipe (default: demo, which "
        "downloads nothing)",
    )
    add_set_option(parser, "override any key: training.epochs=5")
    add_path(parser, "--run-dir", "the run folder (default: a numbered one under run.root)")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start a new run in a new numbered folder, even if there is one of this config",
    )
    add_json_option(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the plan and how long the run would take; write nothing",
    )
    parser.add_argument(
        "--explain",
        metavar="KEY",
        help="print what a key of the config means (training.epochs), or a section (tau)",
    )
    return parser


def _explain(name: str) -> int:
    try:
        print(explain(name))
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return USAGE_ERROR
    return 0


def _run(options: argparse.Namespace, arguments: list[str]) -> int:
    config = load_config(options.config, options.overrides)
    # A plan can be made on any one machine.
    multi_worker = config.devices.strategy == "multi_worker" and not options.dry_run
    cluster = read_cluster(os.environ) if multi_worker else None
    if cluster is not None:
        print(
            f"{config.name}: worker {cluster.index + 1} of {len(cluster.addresses)}; the chief, "
            f"{cluster.addresses[0]}, reports and writes; the workers are those of "
            f"{cluster.origin}",
            flush=True,
        )
        if not cluster.chief:
            return _run_worker(config, cluster, options.run_dir)
    tree = json.loads(resolved_json(absolute_paths(config)))
    if options.dry_run:
        return _dry_run(config, choose_folder(tree, options.run_dir, options.fresh))
    with claimed_folder(tree, options.run_dir, options.fresh) as folder:
        result = folder.finished()
        # The same run with more epochs, or a file that isn't complete and is written again.
        if result is not None and (
            not result.keys() >= RESULT_FIGURES
            or (
                result["epochs"] < config.training.epochs
                and not stops_early(read_history(folder.history), config.monitor)
            )
        ):
            result = None
        if result is not None:
            with _connected(cluster, config, finished=True):
                print(f"{folder.root}: this run is finished; --fresh starts a new one")
        else:
            RunLock(folder.root).check()
            if cluster is None:  # others would wait for a chief that never connects
                _check_photos(config, folder)
            prepare_environment()
            with _connected(cluster, config) as workers:
                result = _train(config, folder, workers, options, arguments)
    if result is not None:
        print(closing_text(result, folder))
        print_json(result, options)
    return 0


def _check_photos(config: Config, folder: RunFolder) -> None:
    """Raises `SourceError` where no photos are found, before TensorFlow is imported."""
    if SOURCES[config.data.source].root:
        from byol_tf.runs.sources import source_options
        from pipelines.sources import plan_source

        with activity(f"looking for photos in {config.data.root}"):
            plan_source(
                **source_options(config),
                on_progress=ProgressLog(logger),
                scan_folder=str(folder.root.parent),
            )


def _dry_run(config: Config, folder: RunFolder) -> int:
    check_writable(folder.root, "run folder")
    _check_photos(config, folder)
    prepare_environment()
    from byol_tf.train.experiment import Experiment
    from byol_tf.train.plan import format_lines

    experiment = Experiment(config, folder.root)
    print(experiment.plan())
    print(format_lines(experiment.measure()))
    print("dry run: nothing was written")
    return 0


def _train(
    config: Config,
    folder: RunFolder,
    workers: "Workers | None",
    options: argparse.Namespace,
    arguments: list[str],
) -> dict[str, Any] | None:
    """Plans and runs an experiment on the chief; reports why it stopped, if it did."""
    from byol_tf.train.experiment import Experiment

    def report_interrupt(stopped: Interrupted) -> None:
        saved = "saved" if stopped.saved else "not saved: the newest earlier checkpoint is used"
        print(
            f"\nstopped by {stopped} after epoch {stopped.epoch} of {config.training.epochs}, step "
            f"{stopped.step} of {experiment.schedule.steps_per_epoch} in the next; {saved}. To "
            f"resume:\n  {_resume_command(options, folder)}",
            flush=True,
        )

    experiment = Experiment(config, folder.root, workers, report_interrupt)
    print(experiment.plan())
    try:
        result = experiment.run([*program("train").split(), *arguments])
    except Interrupted as stopped:
        report_interrupt(stopped)
        raise
    except RunStopped as stopped:
        print(
            f"\nstopped: {stopped}\nTo resume from the newest checkpoint:\n  "
            f"{_resume_command(options, folder, stopped.change)}",
            file=sys.stderr,
            flush=True,
        )
        raise
    return result


def _run_worker(config: Config, cluster: Cluster, run_dir: str | None) -> int:
    """Runs a worker that isn't the chief, and that neither reads nor writes the run folder."""
    configure_logging(logging.WARNING)
    prepare_environment()
    with _connected(cluster, config) as workers:
        if workers is None:
            return 0
        from byol_tf.train.experiment import Experiment

        try:
            # Next to the folder, whatever its name, lies what the chief knows of the photos.
            folder = run_dir or os.path.join(config.run.root, config.name)
            Experiment(config, folder, workers).run()
        except RunStopped as stopped:
            print(f"\nstopped: {stopped}", file=sys.stderr, flush=True)
            raise
    return 0


@contextlib.contextmanager
def _connected(
    cluster: Cluster | None, config: Config, finished: bool = False
) -> Iterator["Workers | None"]:
    """Connects the workers of a multi-worker run, before TensorFlow computes anything.

    Args:
        cluster: of the run; None for a run in this process alone.
        config: of the run.
        finished: whether the run is finished, which only the chief knows.

    Yields:
        The workers; None if there is nothing to run with them.
    """
    if cluster is None:
        yield None
        return
    prepare_environment()
    from byol_tf.train.multi_worker import join_workers

    workers = join_workers(cluster, config.devices)
    with workers.exit_together():
        finished = any(workers.gather(finished))
        yield None if finished else workers


def _resume_command(
    options: argparse.Namespace, folder: RunFolder, change: str | None = None
) -> str:
    """Returns the shell command that resumes a run, with a change of its config if one is given."""
    words = program("train").split()
    if options.config is not None:
        words += ["--config", options.config]
    for override in [*options.overrides, *([] if change is None else [change])]:
        words += ["--set", override]
    return shlex.join([*words, "--run-dir", os.fspath(folder.root)])
