"""Evaluation of frozen encoders: linear probe, k-NN, fine-tuning."""
