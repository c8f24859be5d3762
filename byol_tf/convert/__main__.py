"""`python -m byol_tf.convert`: converts encoders from other projects."""

if __name__ == "__main__":  # before the imports below, so that Ctrl-C ends them quietly
    from byol_tf.__main__ import command

    command("convert")


import argparse
import os
from pathlib import Path

from byol_tf.command_line import add_path, check_writable, command_parser, ends_with_exit_code
from byol_tf.devices import prepare_environment
from byol_tf.errors import ConversionError, describe_path
from byol_tf.logs import activity


@ends_with_exit_code
def main(arguments: list[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 2 with a message and nothing written if the file can't be converted;
        128 + n after signal n.
    """
    options = _parser().parse_args(arguments)
    source, out = Path(options.file), Path(options.out)
    if not os.path.isfile(source):
        raise ConversionError(f"{source}: expected a file; {describe_path(source)}")
    check_writable(out, "--out")
    prepare_environment()
    import keras

    from byol_tf.convert.architecture import IMAGE_SIZE
    from byol_tf.convert.deepmind import read_deepmind
    from byol_tf.convert.pytorch import read_pytorch
    from byol_tf.convert.writing import check_out, write_folder

    keras.config.set_dtype_policy("float32")
    check_out(out)
    with activity(f"converting {source.name}"):
        converted = (
            read_deepmind(source, IMAGE_SIZE)
            if options.layout == "deepmind"
            else read_pytorch(source, IMAGE_SIZE, options.prefix)
        )
        files = write_folder(converted, source, out)
    name, width = converted.architecture
    print(f"{source}: {converted.origin}")
    print(
        f"  {name}, width {width:g}, padding {converted.padding}, "
        f"{converted.encoder.count_params():,} parameters"
    )
    if converted.assumed:
        print(f"  assumed: {converted.assumed}")
    for skipped in converted.skipped:
        print(f"  not converted: {skipped}")
    for file in files:
        print(out / file)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "convert",
        description="Converts an encoder from another project to a SavedModel and a .keras file.",
    )
    layouts = parser.add_subparsers(dest="layout", metavar="LAYOUT", required=True)
    deepmind = layouts.add_parser(
        "deepmind", help="BYOL checkpoint of deepmind-research (.pkl); no code in it is run"
    )
    deepmind.add_argument("file", metavar="CHECKPOINT", type=os.path.expanduser)
    pytorch = layouts.add_parser(
        "pytorch",
        help="ResNet of torchvision, timm, lightly, solo-learn, MoCo, SimSiam, DINO and others "
        "(.pth, .pt, .ckpt, .safetensors); no code in it is run",
    )
    pytorch.add_argument("file", metavar="FILE", type=os.path.expanduser)
    pytorch.add_argument(
        "--prefix",
        metavar="P",
        help="selects one of several encoders by its names' prefix, such as encoder_k (default: "
        "the usual one: encoder_q, backbone, teacher)",
    )
    for layout in (deepmind, pytorch):
        add_path(layout, "--out", "a new or empty folder", required=True)
    return parser
