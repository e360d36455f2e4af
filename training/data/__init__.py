"""Readers of the data sets the networks learn from."""
