"""Lengths on a radiograph, without a network."""
