"""Evaluation of encoders: frozen (linear probe, k-NN), and by fine-tuning."""
