"""Optimisation of a model on samples, and its checkpoints."""
