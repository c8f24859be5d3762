"""BYOL as a Keras model, its losses, optimizers and target update."""
