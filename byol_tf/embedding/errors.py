"""What stops the command."""


class EmbedError(Exception):
    """What the command was asked for can't be done; the text says why and what would be right."""
