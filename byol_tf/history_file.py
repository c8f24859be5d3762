"""A run's `history.csv`, read back."""

import csv
from pathlib import Path


def read_history(path: Path) -> list[dict[str, float]]:
    """Its rows, one an epoch, the untrained network's first, without empty cells. `OSError` without it, `ValueError` if it is another file."""
    with path.open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
