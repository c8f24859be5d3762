"""Embeddings of a folder of photos: similar photos, and labels predicted from a few."""
