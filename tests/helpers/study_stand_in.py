"""Stands in for Python in tests of studies: the commands that train and judge, as far as their
files and exit codes go, in no time.

A run's figures follow from its tau. What is called is noted in the file that STAND_IN_CALLS names;
an epoch takes STAND_IN_SECONDS.
"""

import csv
import json
import os
import signal
import sys
import time
from pathlib import Path

FAILS_AT_TAU = 0.5


def train(options: dict[str, str]) -> int:
    config = json.loads(Path(options["--config"]).read_text())
    tau, epochs, folder = (
        config["tau"]["base"],
        config["training"]["epochs"],
        Path(options["--run-dir"]),
    )
    if tau == FAILS_AT_TAU:
        print("loss is no number", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    stopped: list[int] = []
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    history = folder / "history.csv"
    rows = (
        list(csv.DictReader(history.open()))
        if history.exists()
        else [{"epoch": "0", "loss": "4", "probe_accuracy": "0.1"}]
    )
    while len(rows) <= epochs:
        time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0")))
        if stopped or os.getppid() != parent:
            return 128 + (stopped or [signal.SIGTERM])[0]
        rows.append(
            {
                "epoch": str(len(rows)),
                "loss": str(4 - tau),
                "probe_accuracy": str(tau / 2 + len(rows) / 1000),
            }
        )
        beside = folder / "history.part"
        with beside.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
        beside.replace(history)
    result = {
        "probe_accuracy": tau / 2,
        "projection_std": tau,
        "loss": 4 - tau,
        "epochs": epochs,
        "weights_digest": f"{tau:g}",
    }
    (folder / "result.json").write_text(json.dumps(result))
    return 0


def evaluate(protocol: str, options: dict[str, str]) -> int:
    config = json.loads((Path(options["--run"]) / "config.json").read_text())
    out = Path(options["--out"])
    out.mkdir(parents=True)
    top1 = config["tau"]["base"] / 2 + config["seed"] / 100 + (protocol == "knn") / 10
    result = {"top1": top1, "mean_per_class": top1 / 2}
    (out / "result.json").write_text(json.dumps(result))
    if protocol == "finetune":
        rows = "".join(f"0,{epoch},{1 / epoch},{1 - 0.5**epoch}\n" for epoch in (1, 2, 3))
        (out / "curve.csv").write_text(f"seed,epoch,loss,accuracy\n{rows}")
    return 0


if __name__ == "__main__":
    module, words = sys.argv[2], sys.argv[3:]
    with open(os.environ["STAND_IN_CALLS"], "a") as calls:
        print(
            module.removeprefix("byol_tf."),
            *(word for word in words if not word.startswith(("/", "--"))),
            file=calls,
        )
    given = {
        word: words[place + 1] for place, word in enumerate(words[:-1]) if word.startswith("--")
    }
    sys.exit(train(given) if module == "byol_tf.train" else evaluate(words[0], given))
