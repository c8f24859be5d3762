"""Experiment trackers: the rows of a run's history in Weights & Biases, MLflow or Trackio.

Each is configured by its own environment variables, `WANDB_MODE=offline` and `MLFLOW_TRACKING_URI`
for example. A resumed run continues the same run there.
"""

import contextlib
import functools
import importlib.util
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from byol_tf.config.diff import flat
from byol_tf.config.loading import resolved_json
from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError, RunFolderError
from byol_tf.runs.files import read_json_object, write_atomically
from byol_tf.runs.folder import RunFolder

logger = logging.getLogger(__name__)

Log = Callable[[Mapping[str, float], int], object]
"""Logs name -> value at an epoch."""
_PROJECT = "byol_tf"


def check_trackers(config: Config) -> None:
    """Raises `ConfigError` if the package of one of `run.trackers` isn't installed."""
    for name in config.run.trackers:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"run.trackers: {name} isn't installed: pip install {name}")


@contextlib.contextmanager
def open_trackers(config: Config, folder: RunFolder) -> Iterator[Log]:
    """Opens `run.trackers`, and closes them at the end with the run's outcome.

    Args:
        config: of the run; its relevant keys become the settings shown there.
        folder: whose name the run has there. Its `trackers.json` keeps the run's identity.

    Yields:
        A function that logs to all of them. Its failures are logged once and end nothing.

    Raises:
        ConfigError: if a tracker can't be started, as without a login.
        RunFolderError: if `trackers.json` is damaged.
    """
    path = folder.root / "trackers.json"
    saved = _identities(path) if config.run.trackers else {}
    settings = flat(json.loads(resolved_json(config)))
    failed: set[str] = set()

    def attempt(name: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # anything that a server or a network may answer
            if name not in failed:
                logger.warning("%s: not logged: %s. The run continues without it", name, error)
            failed.add(name)

    def finish(name: str, close: Callable[[bool], object], kind: object, *_: object) -> None:
        attempt(name, lambda: close(kind is None))

    opened: dict[str, Log] = {}
    with contextlib.ExitStack() as stack:
        for name in config.run.trackers:
            try:
                saved[name], log, close = _OPEN[name](folder.root.name, settings, saved.get(name))
            except Exception as error:
                raise ConfigError(f"run.trackers: {name} can't be started: {error}") from error
            opened[name] = log
            stack.push(functools.partial(finish, name, close))
        if opened:
            write_atomically(path, json.dumps(saved) + "\n")

        def log_all(values: Mapping[str, float], epoch: int) -> None:
            for name, log in opened.items():
                attempt(name, functools.partial(log, values, epoch))

        yield log_all


def _identities(path: Path) -> dict[str, str]:
    """Returns name of a tracker -> identity of the run there, of a `trackers.json`."""
    try:
        saved = read_json_object(path)
        if not all(isinstance(identity, str) for identity in saved.values()):
            raise ValueError(f"{path}: expected texts; received {saved!r:.40}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{error}. Without that file the trackers begin a new run there"
        ) from error
    return saved


_Opened = tuple[str, Log, Callable[[bool], object]]
"""The run's identity, a function that logs, and one that closes, called with whether all is
well."""


def _wandb(name: str, settings: dict[str, Any], identity: str | None) -> _Opened:
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        name=name,
        id=identity or uuid.uuid4().hex,
        resume="allow",
        config=settings,
    )
    return run.id, run.log, lambda well: run.finish(exit_code=0 if well else 1)


def _mlflow(name: str, settings: dict[str, Any], identity: str | None) -> _Opened:
    import mlflow

    if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
        mlflow.set_experiment(_PROJECT)
    run = mlflow.start_run(identity, run_name=name)
    if identity is None:
        mlflow.log_params(settings)
    return (
        run.info.run_id,
        mlflow.log_metrics,
        lambda well: mlflow.end_run("FINISHED" if well else "FAILED"),
    )


def _trackio(name: str, settings: dict[str, Any], identity: str | None) -> _Opened:
    import trackio

    identity = identity or f"{name}-{uuid.uuid4().hex[:6]}"
    run = trackio.init(project=_PROJECT, name=identity, config=settings, resume="allow")
    return identity, lambda values, epoch: run.log(dict(values), step=epoch), lambda _: run.finish()


_OPEN: dict[str, Callable[[str, dict[str, Any], str | None], _Opened]] = {
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}
