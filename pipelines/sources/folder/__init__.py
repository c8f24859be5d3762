"""Photos in folders and lists."""
