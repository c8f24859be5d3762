"""Encoders on Hugging Face's hub, by their address."""

import re
from pathlib import Path

from byol_tf.errors import EmbedError, one_line
from pipelines.extras import install_line

REPOSITORY = r"[\w.-]{1,96}/[\w.-]{1,96}"
"""Pattern of `NAME/REPOSITORY`."""
_PREFIX = "hf://"
_ADDRESS = re.compile(rf"{_PREFIX}({REPOSITORY})(?:@([\w./-]{{1,255}}))?")
_FILES = ("encoder.keras", "encoder/*", "input.json")


def encoder_path(text: str, option: str = "--encoder") -> Path:
    """Returns the path of an encoder, which is downloaded first if it is on the hub.

    Args:
        text: a path, or `hf://NAME/REPOSITORY`, of which `@REVISION` names another revision than
            the newest. Files that are in the hub's cache already aren't downloaded again.
        option: the option or key that named it, with which messages begin.

    Raises:
        EmbedError: if an address is of another form, its package isn't installed, or the hub has
            no such encoder for this user.
    """
    if not text.startswith(_PREFIX):
        return Path(text).expanduser()
    address = _ADDRESS.fullmatch(text)
    if address is None:
        raise EmbedError(f"{option} {text}: expected hf://NAME/REPOSITORY")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise EmbedError(
            f"{option} {text}: expected the package huggingface_hub, which isn't installed: "
            f"{install_line('hub')}"
        ) from error
    try:
        folder = Path(
            snapshot_download(
                address[1],
                revision=address[2],
                allow_patterns=list(_FILES),
                library_name="byol_tf",
            )
        )
    except (HfHubHTTPError, OSError) as error:
        raise EmbedError(
            f"{option} {text}: expected an encoder on the hub; {one_line(error)}"
        ) from error
    keras_file = folder / "encoder.keras"
    return keras_file if keras_file.is_file() else folder / "encoder"
