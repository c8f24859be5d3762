"""A run's `history.csv`, read back."""

import csv
from pathlib import Path


def read_history(path: Path) -> list[dict[str, float]]:
    """Its rows, one an epoch, the untrained first; empty cells are left out. `OSError` without it, `ValueError` if it is something else."""
    with path.open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
