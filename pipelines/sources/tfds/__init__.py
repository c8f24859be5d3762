"""Data sets of TensorFlow Datasets: the sources "stl10", "cifar10" and "imagenet"."""
