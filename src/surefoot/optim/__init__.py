"""Optimizers, the scaling of their steps, and learning-rate schedules."""
