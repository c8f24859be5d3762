"""Keras callbacks for monitoring and checkpointing; some end a run, none changes its steps."""
