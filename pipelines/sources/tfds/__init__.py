"""Data sets of TensorFlow Datasets."""
