"""Folders of numbered SavedModels, as TensorFlow Serving has them. Needs no TensorFlow."""

from pathlib import Path


def newest_version(path: Path) -> Path:
    """The SavedModel of the highest number in a folder of numbered ones, which Serving takes too; of any other path the path itself."""
    if not path.is_dir() or (path / "saved_model.pb").exists():
        return path
    versions = [each for each in path.iterdir() if each.name.isdecimal() and (each / "saved_model.pb").is_file()]
    return max(versions, key=lambda each: int(each.name), default=path)
