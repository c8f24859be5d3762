"""Conversion of encoders from deepmind-research and of ResNets with torchvision's names."""
