"""`python -m byol_tf.report`: writes a run's `report.html` and its figures."""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("report")


import logging
import sys
from pathlib import Path

from byol_tf.command_line import (
    add_path,
    add_set_option,
    check_writable,
    command_parser,
    ends_with_exit_code,
)
from byol_tf.config.loading import load_config
from byol_tf.config.overrides import check_run_overrides
from byol_tf.config.schema import Config
from byol_tf.devices import prepare_environment
from byol_tf.errors import RunFolderError
from byol_tf.logs import ProgressLog, activity
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.summary import RunFacts, read_facts
from pipelines.sources import SourceError

logger = logging.getLogger("byol_tf.report")


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 2 with a message if there is no run, nothing of it can be shown, or its
        folder can't be written; 128 + n after signal n.
    """
    parser = command_parser(
        "report",
        description="Writes report.html into a run folder: one page with everything inside, to "
        "read or send.",
    )
    add_path(parser, "--run", "a run folder; the run needn't be finished", required=True)
    add_set_option(parser)
    options = parser.parse_args(arguments)
    folder = RunFolder(Path(options.run))
    check_run_overrides(options.overrides)
    facts = read_facts(folder)
    if len(facts.rows) < 2:
        raise RunFolderError(
            f"--run {folder.root}: expected a run of one epoch or more; it has none in "
            f"{folder.history.name} yet"
        )
    check_writable(folder.root, "--run")
    prepare_environment()
    _write(facts, load_config(folder.config, options.overrides), folder)
    print(folder.report)
    return 0


def _write(facts: RunFacts, config: Config, folder: RunFolder) -> None:
    """Writes the report of the newest checkpoint on the images that a config names.

    Where its weights or the images aren't available, the page has a reason in place of the figures.
    """
    from byol_tf.errors import ProtocolError
    from byol_tf.report.representations import analyze_representations
    from byol_tf.report.writing import write_report
    from byol_tf.runs.encoders import load_run_encoder
    from byol_tf.runs.sources import log_findings, source_options, warn_of_other_images
    from pipelines.sources import open_source

    analysis, missing = None, ""
    try:
        inference = load_run_encoder(config, folder)
        source = open_source(
            **source_options(config),
            scan_folder=str(folder.root.parent),
            on_progress=ProgressLog(logger),
        )
        log_findings(source)
        warn_of_other_images(folder, source)
        with activity("analyzing the representations"):
            analysis = analyze_representations(config, inference, source)
    except (SourceError, ProtocolError) as error:
        missing = str(error)
        print(
            f"without the figures that need images and weights: {missing}. --set data.root=... "
            "names the place of the images",
            file=sys.stderr,
        )
    with activity("writing the report"):
        write_report(facts, folder, analysis, missing)
