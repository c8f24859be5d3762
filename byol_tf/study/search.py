"""Search over the settings of a study by held-out training labels: Optuna's trials as our runs.

Optuna samples the settings and decides which trials end early; its journal on a file has each
decision before it is acted on. A trial that was running when the process ended is found there,
and its run is resumed from the checkpoint.
"""

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from byol_tf.config.diff import differences, listed
from byol_tf.config.loading import load_config, resolved_json
from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError, RunFolderError
from byol_tf.runs.best_epoch import scores
from byol_tf.runs.files import check_no_link
from byol_tf.runs.folder import RunFolder, read_history
from byol_tf.runs.lock import RunLock
from byol_tf.study.plan import PlannedCell, base_config
from byol_tf.study.progress import StudyProgress
from byol_tf.study.runner import OnProgress, StudyRunner, run_side_by_side
from byol_tf.study.schema import Cell, Domain, Range, ScaleName, Search, Study
from pipelines.extras import install_line

if TYPE_CHECKING:
    import optuna

_NAME = "search"
"""Of the only study in a journal."""
_REDUCTION_FACTOR = 3
"""A third of the trials continues at each rung; 3 or 4 is usual (Li et al. 2018, "Hyperband")."""
_ORPHAN_SECONDS = 60.0
"""The run of a killed search needs some seconds to notice that, to save and to end."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SearchPlan:
    """The plan of a search: the base of all trials, and the space around it.

    Attributes:
        base: config file or recipe name.
        changes: `KEY=VALUE` to it, without those of a trial.
        overrides: `KEY=VALUE` of the command line, which all trials have.
        search: section of the study.
        config: the base with its changes; its probe is tested on held-out training images.
    """

    base: str | Path
    changes: tuple[str, ...]
    overrides: tuple[str, ...]
    search: Search
    config: Config

    @property
    def by_accuracy(self) -> bool:
        """True if the trials' value is an accuracy, as a fraction."""
        return self.config.monitor.metric.endswith("_accuracy")

    def trial(
        self, settings: dict[str, Any], split: Literal["test", "held_out"] = "held_out"
    ) -> Config:
        """Returns the config with settings of a trial.

        Args:
            settings: dotted key -> value.
            split: labelled images that the probe is tested on.

        Raises:
            ConfigError: if they don't fit the base.
        """
        texts = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        return load_config(
            self.base, [*self.changes, *texts, *self.overrides, f"probe.split={split}"]
        )


def plan_search(file: Path, study: Study, scale: ScaleName, overrides: Sequence[str]) -> SearchPlan:
    """Checks the search of a study: the base, and both ends or all values of each key.

    Args:
        file: the study's file; a base config may be in its folder.
        study: the study.
        scale: "small" or "paper".
        overrides: `KEY=VALUE` of the command line, which change all trials.

    Raises:
        ConfigError: if the study has no search or scale, or a value doesn't fit the base.
    """
    if study.search is None:
        raise ConfigError(f"{file.name}: search: missing; expected what --search varies")
    base, changes = base_config(file, study, scale)
    changes = changes | study.search.changes
    texts = tuple(f"{key}={json.dumps(value)}" for key, value in changes.items())
    config = load_config(base, [*texts, *overrides, "probe.split=held_out"])
    plan = SearchPlan(base, texts, tuple(overrides), study.search, config)
    lines: list[str] = []
    for key, domain in study.search.space.items():
        values = (domain.low, domain.high) if isinstance(domain, Range) else domain
        for value in values:
            try:
                plan.trial({key: value})
            except ConfigError as error:
                lines += [f"{file.name}, search.space: {line}" for line in str(error).splitlines()]
    if lines:
        raise ConfigError(*dict.fromkeys(lines))
    return plan


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """A trial as far as it is.

    Attributes:
        number: of the trial, from 0.
        settings: dotted key -> value.
        state: "complete", "pruned", "failed" or "running".
        value: the metric of a complete trial's exported encoder, or of a pruned one's last epoch.
        epochs: completed epochs.
        run: name of its run folder.
        error: of a failed one.
        images: number of held-out images of a complete one.
    """

    number: int
    settings: dict[str, Any]
    state: str
    value: float | None
    epochs: int
    run: str
    error: str
    images: int | None


class SearchRunner:
    """Runs the trials of a search, one after the other.

    Args:
        plan: what is searched.
        folder: of the search; its journal is there. No other process writes there.
        runs: trains the trials.
        deadline: as `time.monotonic()`: from then on no trial starts, and one that runs is stopped
            once it has saved.

    Raises:
        ConfigError: if Optuna isn't installed.
        RunFolderError: if the folder has a search of another config or space, or its journal is a
            link.
    """

    def __init__(
        self, plan: SearchPlan, folder: Path, runs: StudyRunner, deadline: float = float("inf")
    ):
        self.plan, self.runs, self.deadline = plan, runs, deadline
        self._study, self._storage = _open_study(plan, folder / "trials.journal")

    @property
    def finished(self) -> int:
        """Number of trials that are complete, pruned or failed."""
        return sum(trial.state.is_finished() for trial in self._study.get_trials(deepcopy=False))

    @property
    def out_of_time(self) -> bool:
        """True if the deadline is reached."""
        return time.monotonic() >= self.deadline

    def results(self) -> list[TrialResult]:
        """Returns all trials, best first; then those that were pruned, run or failed."""
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "RUNNING": "running", "FAIL": "failed"}
        results = [
            TrialResult(
                number=trial.number,
                settings={key: _value(each) for key, each in trial.params.items()},
                state=names[trial.state.name],
                value=trial.value if trial.state.is_finished() else None,
                epochs=max(trial.intermediate_values, default=0),
                run=trial.user_attrs.get("run", ""),
                error=trial.user_attrs.get("error", ""),
                images=trial.user_attrs.get("images"),
            )
            for trial in self._study.get_trials(deepcopy=False)
        ]
        order = list(names.values())
        return sorted(results, key=lambda each: (order.index(each.state), -(each.value or 0.0)))

    def run_trial(self, progress: StudyProgress) -> str:
        """Runs the trial that was interrupted, or the next one, and shows its progress.

        Returns:
            How it ended, as `TrialResult.state`; "running" if the time was over.

        Raises:
            Stopped: after a signal, once the run has saved.
            RunFolderError: if another process has the trial's run.
        """
        trial = self._next_trial()
        settings = {
            key: _suggest(trial, key, domain) for key, domain in self.plan.search.space.items()
        }
        name = ", ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())
        began = time.perf_counter()
        progress.begin(name, trains=True)
        state = self._run(trial, settings, functools.partial(progress.update, name))
        if state != "running":
            progress.end(name, None if state == "failed" else time.perf_counter() - began)
        return state

    def _run(self, trial: "optuna.Trial", settings: dict[str, Any], on_progress: OnProgress) -> str:
        from optuna.trial import TrialState

        try:
            config = self.plan.trial(settings)
        except ConfigError as error:
            return self._fail(trial, str(error).replace("\n", "; "))
        planned = PlannedCell(
            Cell(row=f"trial {trial.number}"), config.seed, config, settings, words=()
        )
        trial.set_user_attr("run", planned.run_name)
        metric = config.monitor.metric
        reported = set(self._study.trials[trial.number].intermediate_values)
        pruned = bool(reported) and trial.should_prune()

        def should_stop(rows: list[dict[str, float]]) -> bool:
            """Reports the epochs one by one, so that decisions don't depend on the polling."""
            nonlocal pruned
            for epoch, value in scores(rows, metric).items():
                if not pruned and epoch not in reported:
                    reported.add(epoch)
                    trial.report(value, epoch)
                    pruned = trial.should_prune()
            return pruned or self.out_of_time

        folder = self.runs.folder(planned)
        _wait_until_free(folder)
        training = [] if pruned else [self.runs.train(planned, on_progress, should_stop)]
        if failure := "".join(run_side_by_side(training)):
            return self._fail(trial, failure)
        should_stop(read_history(folder.history) if folder.history.exists() else [])
        if pruned:
            self._study.tell(trial, state=TrialState.PRUNED)
            return "pruned"
        result = folder.finished()
        if result is None:
            return "running"
        trial.set_user_attr("images", result.get("test_images"))
        self._study.tell(trial, result[metric])
        return "complete"

    def _fail(self, trial: "optuna.Trial", error: str) -> str:
        from optuna.trial import TrialState

        trial.set_user_attr("error", error)
        self._study.tell(trial, state=TrialState.FAIL)
        return "failed"

    def _next_trial(self) -> "optuna.Trial":
        """Returns the trial that an earlier process left, or a new one.

        The sampler's seed is a function of the trial's number, so that a resumed search samples
        what an uninterrupted one would.
        """
        import optuna
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        running = [trial.number for trial in trials if trial.state == TrialState.RUNNING]
        number = running[0] if running else len(trials)
        samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        sampler = samplers[self.plan.search.sampler]
        seed = np.random.default_rng([self.plan.config.seed, number]).integers(2**31)
        self._study.sampler = sampler(seed=int(seed))
        if not running:
            return self._study.ask()
        study_id = self._storage.get_study_id_from_name(_NAME)
        return optuna.Trial(
            self._study, self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        )


def _open_study(
    plan: SearchPlan, journal: Path
) -> "tuple[optuna.Study, optuna.storages.JournalStorage]":
    """Opens or makes the study in a journal, and checks that it is of the same plan."""
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ConfigError(
            f"--search: needs Optuna, {install_line('search')}; received {error}"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    check_no_link(journal)
    _repair(journal)
    pruners: dict[str, optuna.pruners.BasePruner] = {
        "none": optuna.pruners.NopPruner(),
        "successive_halving": optuna.pruners.SuccessiveHalvingPruner(
            min_resource=plan.search.min_epochs, reduction_factor=_REDUCTION_FACTOR
        ),
    }
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(
        storage=storage,
        study_name=_NAME,
        direction="maximize",
        pruner=pruners[plan.search.pruner],
        load_if_exists=True,
    )
    config = json.loads(resolved_json(plan.config))
    search = json.loads(plan.search.model_dump_json(by_alias=True))
    current = {
        "config": config,
        "rest": [search, config["monitor"], config["run"]["export"]],  # no run differs by those
    }
    saved = study.user_attrs.get("plan")
    if saved is None:
        study.set_user_attr("plan", current)
    elif differing := differences(saved["config"], config):
        raise RunFolderError(
            f"{journal.parent}: this search was started with another config:\n"
            + "\n".join(listed(differing))
            + "\nResume it with the config it has, or name another folder with --out"
        )
    elif saved["rest"] != current["rest"]:
        raise RunFolderError(
            f"{journal.parent}: this search was started with another section search of the study, "
            "monitor or run.export. Restore that, or name another folder with --out"
        )
    return study, storage


def _repair(journal: Path) -> None:
    """Removes what a killed process leaves in a journal: half of its last line, and a lock.

    Optuna would wait 30 s for that lock; the search's folder has a lock of its own.
    """
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        content = journal.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            logger.info("%s: half a line of a killed process is removed", journal)
            with journal.open("r+b") as file:
                file.truncate(complete)


def _wait_until_free(folder: RunFolder) -> None:
    """Waits for the run of a search that was killed, which saves and ends a little later."""
    until = time.monotonic() + _ORPHAN_SECONDS
    while True:
        try:
            return RunLock(folder.root).check()
        except RunFolderError:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)


def _suggest(trial: "optuna.Trial", key: str, domain: Domain) -> Any:
    """Samples the value of a key; the same again for a trial that has one."""
    if not isinstance(domain, Range):
        return _value(trial.suggest_categorical(key, [json.dumps(value) for value in domain]))
    if isinstance(domain.low, int) and isinstance(domain.high, int):
        return trial.suggest_int(key, domain.low, domain.high, log=domain.log)
    return _value(trial.suggest_float(key, domain.low, domain.high, log=domain.log))


def _value(sampled: Any) -> Any:
    """Returns a sampled value as the config has it: of a list as JSON, or of three digits."""
    if isinstance(sampled, str):
        return json.loads(sampled)
    return float(f"{sampled:.3g}") if isinstance(sampled, float) else sampled
