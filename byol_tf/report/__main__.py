"""`python -m byol_tf.report`: a run on one page, `report.html`, with its figures. A run makes its
own at its end."""

import argparse
import sys
from pathlib import Path

from byol_tf.devices import prepare_environment
from byol_tf.errors import ConfigError, RunFolderError
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.summary import RunFacts, read_facts
from pipelines.sources import SourceError

_USAGE_ERROR = 2


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, or 2 with a message if there is no run, or
    nothing of it can be shown."""
    parser = argparse.ArgumentParser(
        prog="python -m byol_tf.report",
        description="Writes report.html into a run folder: one page with everything inside, to "
        "read or send.",
    )
    parser.add_argument(
        "--run", metavar="DIR", required=True, help="a run folder; the run needn't be finished"
    )
    folder = RunFolder(Path(parser.parse_args(arguments).run))
    try:
        facts = read_facts(folder)
        if len(facts.rows) < 2:
            raise RunFolderError(
                f"--run {folder.root}: expected a run of one epoch or more; it has none in "
                f"{folder.history.name} yet"
            )
        prepare_environment()
        _draw(facts, folder)
    except (ConfigError, RunFolderError) as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    except OSError as error:
        print(f"{folder.report}: can't be written: {error.strerror or error}", file=sys.stderr)
        return _USAGE_ERROR
    print(folder.report)
    return 0


def _draw(facts: RunFacts, folder: RunFolder) -> None:
    """Looks at the run's images through its newest checkpoint; where either is not to be had the
    page says so."""
    from byol_tf.errors import ProtocolError
    from byol_tf.report.representations import analyze_representations
    from byol_tf.report.writing import write_report
    from byol_tf.runs.data import source_options
    from byol_tf.runs.encoders import load_run_encoder
    from pipelines.sources import open_source

    seen, missing = None, ""
    try:
        inference = load_run_encoder(facts.config, folder)
        source = open_source(**source_options(facts.config), scan_folder=str(folder.root.parent))
        seen = analyze_representations(facts.config, inference, source)
    except (SourceError, ProtocolError) as error:
        missing = str(error)
        print(f"without the figures that need images and weights: {missing}", file=sys.stderr)
    write_report(facts, folder, seen, missing)


if __name__ == "__main__":
    sys.exit(main())
