"""`python -m byol_tf.train`: pre-train, probe, export."""

import argparse
import contextlib
import json
import os
import shlex
import sys
import traceback
from typing import NoReturn

from byol_tf.config.docs import explain, sections_help
from byol_tf.config.loading import load_config, resolved_json
from byol_tf.devices import Cluster, prepare_environment, read_cluster
from byol_tf.errors import ConfigError, DeviceError, Interrupted, RunFolderError, RunStopped
from byol_tf.runs.folder import RunFolder, choose_folder
from byol_tf.runs.lock import RunLock
from byol_tf.logs import configure_logging, ignore_output_errors
from byol_tf.train.heartbeat import awaited
from byol_tf.train.signals import SignalWatch

_USAGE_ERROR = 2


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code.

    0; or 2 with a message and nothing written if config, images or folder are wrong; or 128 + n
    after signal n, when the run has saved (and at once where no step is being made); or 75 where
    another machine of the run was lost; or one of `errors.py` if it went wrong by itself.
    """
    parser = argparse.ArgumentParser(
        prog="python -m byol_tf.train",
        description="Pre-trains an encoder with BYOL and exports it.",
        epilog=f"sections of a config, whose keys --set changes:\n{sections_help()}\nall keys of "
        "one, with meanings: --explain SECTION",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the experiment, a JSON file (default: the demo, which downloads nothing)",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override any key: training.epochs=5",
    )
    parser.add_argument(
        "--run-dir", metavar="DIR", help="the run folder (default: a numbered one under run.root)"
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="begin anew in a new numbered folder, even if a run of this config is there",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    parser.add_argument(
        "--explain",
        metavar="KEY",
        help="print what a key of the config means (training.epochs), or a section (tau)",
    )
    options = parser.parse_args(arguments)
    if options.explain is not None:
        return _explain(options.explain)
    ignore_output_errors()
    configure_logging()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(
            line_buffering=True
        )  # nothing printed is lost where the process has to end at once
    with SignalWatch(None):
        return _command(options, sys.argv[1:] if arguments is None else arguments)


def _command(options, arguments: list[str]) -> int:
    try:
        config = load_config(options.config, options.overrides)
        several = (
            config.devices.strategy == "multi_worker" and not options.dry_run
        )  # a plan can be made on any one machine
        cluster = read_cluster(os.environ) if several else None
        if cluster is not None and not cluster.chief:
            return _train_along(config, cluster)
        folder = choose_folder(json.loads(resolved_json(config)), options.run_dir, options.fresh)
        finished = folder.finished()
        if finished is not None and finished["epochs"] < config.training.epochs:
            finished = None  # the same run, longer
        if finished is not None and not options.dry_run:
            if cluster is not None:
                workers = _meet(cluster)
                with workers.meet():
                    workers.gathered(True)  # so that the others end as well
            print(f"{folder.root}: this run is finished; --fresh begins anew")
            return _report(finished, folder)
        if not options.dry_run:
            RunLock(folder.root).check()
        return _train(config, folder, cluster, options, arguments)
    except (ConfigError, RunFolderError, DeviceError) as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    except (Interrupted, RunStopped) as stopped:  # said where it was known how to go on
        return stopped.exit_code


def _explain(name: str) -> int:
    try:
        print(explain(name))
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return _USAGE_ERROR
    return 0


def _meet(cluster: Cluster):
    """The workers of a run on several machines, whose strategy is built before TensorFlow computes
    anything, as it has to be."""
    prepare_environment()
    with awaited(cluster):
        from byol_tf.devices import build_strategy
        from byol_tf.train.multi_worker import Workers

        return Workers(build_strategy("multi_worker"))


def _train_along(config, cluster: Cluster) -> int:
    """What a machine does that isn't the chief: its part of each step, and nothing on disk."""
    print(
        f"{config.name}: machine {cluster.index + 1} of {len(cluster.addresses)}; "
        f"{cluster.addresses[0]} reports and writes",
        flush=True,
    )
    workers = _meet(cluster)
    with workers.meet():
        if any(workers.gathered(False)):  # the chief's run is finished
            return 0
        from byol_tf.train.experiment import Experiment
        from pipelines.sources import SourceError

        try:
            Experiment(config, None, lambda line: None, workers).run([])
        except SourceError as error:
            raise DeviceError(str(error)) from error
        except RunStopped as stopped:
            print(f"\nstopped: {stopped}", file=sys.stderr, flush=True)
            raise
    return 0


def _train(
    config, folder: RunFolder, cluster: Cluster | None, options, arguments: list[str]
) -> int:
    """The whole command but for what is wrong before TensorFlow is needed; `Interrupted` after a
    signal, when it has been reported."""
    prepare_environment()
    workers = None if cluster is None else _meet(cluster)
    from pipelines.sources import SourceError

    try:
        with contextlib.nullcontext() if workers is None else workers.meet():
            if workers is not None:
                workers.gathered(False)  # the run isn't finished, which the others can't know
            result = _learn(config, folder, workers, options, arguments)
    except SourceError as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    return 0 if result is None else _report(result, folder)


def _learn(config, folder: RunFolder, workers, options, arguments: list[str]) -> dict | None:
    """Plans the run, says so, and runs it; its result, or None where it was only to be planned."""
    from byol_tf.config.schedule import training_schedule
    from byol_tf.models.from_config import measure_sizes
    from byol_tf.runs.data import source_options
    from byol_tf.train.experiment import Experiment
    from byol_tf.train.plan import plan_lines
    from pipelines.sources import plan_source

    source = plan_source(**source_options(config))
    schedule = training_schedule(config, source.counts["pretrain"])
    print(f"{config.name}")
    for subject, text in plan_lines(config, source, schedule, measure_sizes(config), folder):
        print(f"  {subject:<11} {text}")
    if options.dry_run:
        _check_weights(config)
        for subject, text in _measured(config, schedule, folder):
            print(f"  {subject:<11} {text}")
        print("dry run: nothing was written")
        return None
    command = ["python", "-m", "byol_tf.train", *arguments]

    def tell(stopped: Interrupted) -> None:
        where = (
            f"after epoch {stopped.epoch} of {config.training.epochs}, step {stopped.step} of "
            f"{schedule.steps_per_epoch} in the next"
        )
        saved = (
            "saved"
            if stopped.saved
            else "not saved, so the newest checkpoint before is what counts"
        )
        print(
            f"\nstopped by {stopped} {where}; {saved}. To go on:\n  {_same_run(options, folder)}",
            flush=True,
        )

    try:
        return Experiment(config, folder, workers=workers, tell=tell).run(
            command, verbose=1 if sys.stdout.isatty() else 2
        )
    except Interrupted as stopped:
        tell(stopped)
        raise
    except RunStopped as stopped:
        line = (
            f"\nstopped: {stopped}\nTo go on from the newest checkpoint:\n  "
            f"{_same_run(options, folder, stopped.change)}"
        )
        print(line, file=sys.stderr, flush=True)
        raise


def _check_weights(config) -> None:
    """`ConfigError` if the encoder can't start from what the config names. (A real run finds that
    out before it writes anything.)"""
    if config.encoder.weights is not None:
        from byol_tf.models.from_config import build_config_encoder
        from byol_tf.runs.encoders import starting_weights

        starting_weights(config.encoder.weights, build_config_encoder(config), config.views)


def _same_run(options, folder: RunFolder, change: str | None = None) -> str:
    """The command that goes on with the run in a folder, for a shell; with a change of the config,
    if one is given."""
    words = ["python", "-m", "byol_tf.train"]
    if options.config is not None:
        words += ["--config", options.config]
    for override in [*options.overrides, *([] if change is None else [change])]:
        words += ["--set", override]
    return shlex.join([*words, "--run-dir", os.fspath(folder.root)])


def _measured(config, schedule, folder: RunFolder) -> list[tuple[str, str]]:
    """Lines on how fast input and step are here and how long what is left will take, or why that
    can't be said."""
    import tensorflow as tf

    from byol_tf.devices import build_strategy, set_precision
    from byol_tf.runs.checkpoints import list_checkpoints, position_of
    from byol_tf.runs.data import source_options
    from byol_tf.train.advice import out_of_memory, remedies
    from byol_tf.train.dry_run import SAMPLE, measure_throughput
    from byol_tf.train.plan import throughput_lines
    from pipelines.sources import sample_source

    devices = config.devices
    if devices.strategy == "multi_worker":
        return [
            (
                "speed",
                "not measured: that takes all machines. With devices.strategy=auto it is measured "
                "for this one",
            )
        ]
    try:
        strategy = build_strategy(devices.strategy, devices.tpu)
    except DeviceError as error:
        return [("speed", f"not measured: {error}")]
    images = sample_source(count=SAMPLE, **source_options(config))
    if images is None:
        return [("speed", "not measured: the images have to be prepared first, which a run does")]
    set_precision(devices.precision)
    try:
        rates = measure_throughput(config, images, strategy)
    except tf.errors.ResourceExhaustedError as error:
        return [("speed", f"not measured: {out_of_memory(config, error)}")]
    epochs, steps = max(map(position_of, list_checkpoints(folder.checkpoints)), default=(0, 0))
    left = max(0, schedule.total_steps - epochs * schedule.steps_per_epoch - steps)
    return throughput_lines(rates, left * config.training.batch_size, remedies(config))


def _report(result: dict, folder: RunFolder) -> int:
    """The closing table, what to do next, and the result on one line, which is the last."""
    start = "untrained" if result.get("starting_weights") is None else "at start"
    print(
        f"\n  {'accuracy on frozen features':<30} {start:>10} {result.get('system', 'trained'):>8}"
    )
    for name, key in (("linear probe", "probe_accuracy"), ("nearest neighbours", "knn_accuracy")):
        if result[key] is not None:
            print(f"  {name:<30} {result[f'untrained_{key}']:>10.1%} {result[key]:>8.1%}")
        else:
            print(f"  {name:<30} {'no labels':>10}")
    if result.get("supervised_accuracy") is not None:
        print(
            f"  {'supervised on the same labels':<30} {'':>10} "
            f"{result['supervised_accuracy']:>8.1%}"
        )
    print(
        f"\n  {result['epochs']} epochs, {result['steps']:,} steps, "
        f"{result['images_per_second']:,.0f} images/s, "
        f"spread of projections {result['projection_std']:.2f} (1: scattered, 0: collapsed)"
    )
    run = shlex.quote(os.fspath(folder.root))
    page = (
        f"{run}/report.html" if folder.report.exists() else f"python -m byol_tf.report --run {run}"
    )
    print(
        f"\n  look:  {page}\n         {run}/figures/curves.png, {run}/figures/views.png\n         "
        f"tensorboard --logdir {run}/logs"
    )
    saved_model = os.fspath(folder.saved_model)
    print(
        f"  use:   encoder = tf.saved_model.load({saved_model!r}); encoder.serve(images)  # uint8 "
        "[N, H, W, 3]"
    )
    print(
        f"         python -m byol_tf.embed --encoder {run} --images DIR  # photos that are alike; "
        "labels from a handful"
    )
    print(
        f"         python -m byol_tf.export --run {run} --format all  # also LiteRT and ONNX; "
        f"{run}/export/USAGE.md\n"
    )
    print(json.dumps(result))
    return 0


def command() -> NoReturn:
    """The process of the command, which ends with the exit code of `main`.

    It ends at once: all that a run writes is written then, and Python's own end waits for
    TensorFlow's threads, of which one that still reads an image may wait for Python. A run that had
    saved after a signal was still there when it should have been gone.
    """
    code = 1
    try:
        code = main()
    except SystemExit as ended:  # argparse's
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    command()
