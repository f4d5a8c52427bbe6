"""Builds the model and the pictures that surefoot carries with it. Not installed; see README.md."""
