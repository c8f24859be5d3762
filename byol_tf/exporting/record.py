"""`proof.json`: what was measured of the files in an export folder. Needs no TensorFlow."""

import json
from pathlib import Path

from byol_tf.exporting.forms import Form
from byol_tf.run_folder import write_atomically


def read_proofs(export: Path) -> dict[str, dict]:
    """Heading of each form -> what was measured of it (see `proof.Proof`), of files that are there; {} where nothing was measured."""
    try:
        proofs = json.loads((export / "proof.json").read_text(encoding="utf-8"))
        return {what: facts for what, facts in proofs.items() if (export / facts["name"]).exists()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def heading(form: Form, proofs: dict[str, dict]) -> str:
    """What a form is called on pages for people: an int8 file says what of it is int8, if that is known."""
    int8 = proofs.get(form.what, {}).get("int8")
    return form.what if int8 is None else f"{form.what} ({int8})"


def record_proofs(export: Path, proofs: dict[str, dict]) -> None:
    """Writes what was measured now, and keeps what was measured of other files."""
    now = {facts["name"] for facts in proofs.values()}
    kept = {what: facts for what, facts in read_proofs(export).items() if facts["name"] not in now}
    write_atomically(export / "proof.json", json.dumps(kept | proofs, indent=2) + "\n")
