"""Folders of photos as shards."""
