"""Photos in folders and lists: the source "folder", and `FlatImageFolder`."""
