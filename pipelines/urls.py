"""Tells URLs from paths; importable without anything that takes time."""


def is_url(path: str) -> bool:
    """Returns whether a path is a URL as fsspec takes it, such as `s3://bucket/photos`."""
    return "://" in path or "::" in path
