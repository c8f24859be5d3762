"""`proof.json`: what was measured of the files in an export folder. Needs no TensorFlow."""

import json
from pathlib import Path

from byol_tf.run_folder import write_atomically


def read_proofs(export: Path) -> dict[str, dict]:
    """Heading of each form -> what was measured of it (see `proof.Proof`), of files that are there; {} where nothing was measured."""
    try:
        proofs = json.loads((export / "proof.json").read_text(encoding="utf-8"))
        return {what: facts for what, facts in proofs.items() if (export / facts["name"]).exists()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def record_proofs(export: Path, proofs: dict[str, dict]) -> None:
    """Writes what was measured now, and keeps what was measured of other files."""
    now = {facts["name"] for facts in proofs.values()}
    kept = {what: facts for what, facts in read_proofs(export).items() if facts["name"] not in now}
    write_atomically(export / "proof.json", json.dumps(kept | proofs, indent=2) + "\n")
