"""Encoders that others trained, turned into ours: what `python -m byol_tf.convert` is made of."""
