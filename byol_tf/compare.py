"""`python -m byol_tf.compare`: several runs side by side, from their files alone."""

import argparse
import sys
from pathlib import Path

from byol_tf.history_file import read_history


def main(arguments: list[str] | None = None) -> int:
    """Prints a line a run and writes the figure; returns 0, or 2 with a message if a run has no history."""
    parser = argparse.ArgumentParser(prog="python -m byol_tf.compare", description="Compares runs: probe, collapse measures, loss.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or history.csv files; NAME=RUN gives one another name")
    parser.add_argument("--out", metavar="PNG", default="comparison.png", help="the figure (default: comparison.png)")
    options = parser.parse_args(arguments)
    histories = {}
    for text in options.runs:
        name, _, path = text.rpartition("=")
        try:
            histories[name or Path(path).stem] = read_history(_history(Path(path)))
        except (OSError, ValueError) as error:
            print(f"{text}: expected a run folder with a history.csv; {error}", file=sys.stderr)
            return 2
    print(f"{'run':<24} {'epochs':>6} {'untrained':>10} {'probe':>7} {'spread':>7} {'cosine':>7} {'rank':>6} {'loss':>7}")
    for name, rows in histories.items():
        probed = [row["probe_accuracy"] for row in rows if "probe_accuracy" in row]
        accuracies = f"{probed[0]:>10.1%} {probed[-1]:>7.1%}" if probed else f"{'-':>10} {'-':>7}"
        last = rows[-1]
        measures = f"{last['projection_std']:>7.3f} {last['projection_cosine']:>7.3f} {last['effective_rank']:>6.1f}"
        print(f"{name:<24} {last['epoch']:>6.0f} {accuracies} {measures} {last.get('loss', float('nan')):>7.3f}")
    from byol_tf.figures import comparison_figure

    comparison_figure(Path(options.out), histories)
    print(options.out)
    return 0


def _history(run: Path) -> Path:
    """A run folder's `history.csv`, or such a file itself."""
    return run / "history.csv" if run.is_dir() else run


if __name__ == "__main__":
    sys.exit(main())
