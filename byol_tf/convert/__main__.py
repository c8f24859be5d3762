"""`python -m byol_tf.convert`: encoders that others trained, as ours."""

import argparse
import sys
from pathlib import Path

from byol_tf.devices import prepare_environment

_USAGE_ERROR = 2


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, or 2 with a message and nothing written if the
    file can't be converted."""
    options = _parser().parse_args(arguments)
    source, out = Path(options.file), Path(options.out)
    if not source.is_file():
        what = "that is a folder" if source.is_dir() else "there is nothing there"
        print(f"{source}: expected a file; {what}", file=sys.stderr)
        return _USAGE_ERROR
    prepare_environment()
    from byol_tf.convert.deepmind import read_deepmind
    from byol_tf.convert.torchvision import read_torchvision
    from byol_tf.convert.writing import SIZE, check_free, write_folder
    from byol_tf.devices import set_precision
    from byol_tf.errors import ConversionError

    set_precision("float32")
    try:
        check_free(out)
        converted = (
            read_deepmind(source, SIZE)
            if options.layout == "deepmind"
            else read_torchvision(source, SIZE, options.prefix)
        )
        files = write_folder(converted, source, out)
    except ConversionError as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    name, width = converted.architecture
    print(f"{source}: {converted.origin}")
    print(
        f"  {name}, width {width:g}, padding {converted.padding}, "
        f"{converted.encoder.count_params():,} parameters"
    )
    for left_out in converted.left_out:
        print(f"  not converted: {left_out}")
    for file in files:
        print(out / file)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m byol_tf.convert",
        description="Turns an encoder that others trained into a SavedModel and a .keras file.",
    )
    layouts = parser.add_subparsers(dest="layout", metavar="LAYOUT", required=True)
    deepmind = layouts.add_parser(
        "deepmind",
        help="a BYOL checkpoint of deepmind-research (.pkl); read without running any of it",
    )
    deepmind.add_argument("file", metavar="CHECKPOINT")
    torchvision = layouts.add_parser(
        "torchvision", help="a ResNet's state dict with torchvision's names (.safetensors)"
    )
    torchvision.add_argument("file", metavar="FILE")
    torchvision.add_argument(
        "--prefix",
        metavar="P",
        help="what stands before the encoder's names: backbone. (default: found, if the file holds "
        "one encoder)",
    )
    for layout in (deepmind, torchvision):
        layout.add_argument("--out", metavar="DIR", required=True, help="a new or empty folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
