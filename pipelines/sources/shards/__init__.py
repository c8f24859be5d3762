"""Photos in shards: the source "shards"."""
