"""Run folders: their files, their lock, their checkpoints, and readers of all three."""
