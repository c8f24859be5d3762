"""`python -m byol_tf.export`: a run's newest checkpoint as a SavedModel and a `.keras` file."""

import argparse
import sys

from byol_tf.config_file import ConfigError, load_config
from byol_tf.devices import prepare_environment
from byol_tf.run_folder import RunFolder


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, or 2 with a message if the run can't be exported."""
    parser = argparse.ArgumentParser(prog="python -m byol_tf.export", description="Exports the encoder of a run.")
    parser.add_argument("--run", metavar="DIR", required=True, help="a run folder")
    folder = RunFolder(parser.parse_args(arguments).run)
    if not folder.config.exists():
        print(f"--run {folder.root}: expected a run folder, with a config.json; found none there", file=sys.stderr)
        return 2
    prepare_environment()
    try:
        config = load_config(folder.config)
        from byol_tf.restored import restored_inference
        from byol_tf.saved_encoder import export_encoder

        export_encoder(restored_inference(config, folder), folder.export, config)
    except (ConfigError, FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{folder.export / 'encoder'}: SavedModel\n{folder.export / 'encoder.keras'}: Keras")
    return 0


if __name__ == "__main__":
    sys.exit(main())
