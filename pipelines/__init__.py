"""Images in, batches of views out. Knows nothing of `byol_tf`."""
