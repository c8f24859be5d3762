"""Upload of an export folder to Hugging Face's hub."""

import importlib.util
import re
from pathlib import Path

from byol_tf.errors import OutputError, one_line
from byol_tf.runs.hub import REPOSITORY
from pipelines.extras import install_line


def check_hub(repo: str) -> None:
    """Checks, before anything is exported, that a folder can be pushed to a repository.

    Raises:
        OutputError: if `repo` isn't `NAME/REPOSITORY`, the package is missing, or nobody is logged
            in.
    """
    if not re.fullmatch(REPOSITORY, repo):
        raise OutputError(
            f"--push-to-hub: expected NAME/REPOSITORY, such as me/my-encoder; received {repo!r}"
        )
    if importlib.util.find_spec("huggingface_hub") is None:
        raise OutputError(
            "--push-to-hub: expected the package huggingface_hub, which isn't installed: "
            f"{install_line('hub')}"
        )
    from huggingface_hub import get_token

    if get_token() is None:
        raise OutputError("--push-to-hub: expected a login; run `hf auth login`, or set HF_TOKEN")


def push(folder: Path, repo: str) -> str:
    """Uploads an export folder in one commit; a repository that doesn't exist yet is made private.

    Args:
        folder: with the exported files, the model card `README.md` and `USAGE.md`.
        repo: `NAME/REPOSITORY`.

    Returns:
        The address of the repository.

    Raises:
        OutputError: if the hub refuses, with its reason.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    for path in folder.rglob("*"):
        if path.is_symlink():  # in a run folder from elsewhere to any file of the user's
            raise OutputError(
                f"--push-to-hub {repo}: {path} is a link, and what it leads to would be uploaded; "
                "remove it"
            )
    api = HfApi(library_name="byol_tf")
    try:
        address = api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Export of byol_tf")
    except (HfHubHTTPError, OSError) as error:
        raise OutputError(
            f"--push-to-hub {repo}: expected the hub to take it; {one_line(error)}"
        ) from error
    return str(address)
