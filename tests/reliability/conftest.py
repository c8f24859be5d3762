"""What the reliability tests share: the report that `docs/results/reliability.md` is made from (see
`python -m tests.reliability`)."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def report(request) -> Callable[..., None]:
    """`report(row, what, times)`: a line on what a test did, written once it has passed, where
    BYOL_TF_RELIABILITY_REPORT names a file.

    `row`: of the table of fourteen, or a word for what is beside it; `what`: the measure in words,
    figures included; `times`: how often.
    """
    began, lines = time.time(), []

    def note(row: int | str, what: str, times: int) -> None:
        lines.append({"row": row, "what": what, "times": times})

    yield note
    path, passed = (
        os.environ.get("BYOL_TF_RELIABILITY_REPORT"),
        getattr(request.node, "passed", False),
    )
    if path and passed:
        with Path(path).open("a") as file:
            for line in lines:
                seconds = round(time.time() - began, 1)
                file.write(
                    json.dumps(line | {"seconds": seconds, "test": request.node.nodeid}) + "\n"
                )


@pytest.fixture(scope="session")
def processes():
    """What begins the processes of the tiny runs (`processes.py`); at the end none of them is
    left."""
    from tests.reliability.processes import Processes, no_process_left

    with no_process_left(), Processes() as processes:
        yield processes


@pytest.fixture(scope="session")
def whole(processes, tmp_path_factory):
    """A tiny run in one process that nobody disturbs, with a checkpoint after each step."""
    from tests.reliability.processes import Run

    run = Run(tmp_path_factory.mktemp("whole"))
    processes.finish(run, patient=True)
    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if outcome.when == "call":
        item.passed = outcome.passed
    return outcome
