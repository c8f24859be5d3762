"""The run folder: files, lock, checkpoints and what can be read from them."""
