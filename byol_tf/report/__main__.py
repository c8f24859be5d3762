"""`python -m byol_tf.report`: writes a run's `report.html` and its figures."""

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
    """Runs the command.

    Args:
        arguments: of the command line; None for those of the process.

    Returns:
        The exit code: 0, or 2 with a message if there is no run or nothing of it can be shown.
    """
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
        _write(facts, folder)
    except (ConfigError, RunFolderError) as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    except OSError as error:
        print(f"{folder.report}: can't be written: {error.strerror or error}", file=sys.stderr)
        return _USAGE_ERROR
    print(folder.report)
    return 0


def _write(facts: RunFacts, folder: RunFolder) -> None:
    """Writes the report of the newest checkpoint.

    Where its weights or the images aren't available, the page has a reason in place of the figures.
    """
    from byol_tf.errors import ProtocolError
    from byol_tf.report.representations import analyze_representations
    from byol_tf.report.writing import write_report
    from byol_tf.runs.data import source_options
    from byol_tf.runs.encoders import load_run_encoder
    from pipelines.sources import open_source

    analysis, missing = None, ""
    try:
        inference = load_run_encoder(facts.config, folder)
        source = open_source(**source_options(facts.config), scan_folder=str(folder.root.parent))
        analysis = analyze_representations(facts.config, inference, source)
    except (SourceError, ProtocolError) as error:
        missing = str(error)
        print(f"without the figures that need images and weights: {missing}", file=sys.stderr)
    write_report(facts, folder, analysis, missing)


if __name__ == "__main__":
    sys.exit(main())
