"""Classes of photos, as an exported classifier predicts them."""
