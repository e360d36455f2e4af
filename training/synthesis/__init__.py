"""Knees and films that are drawn or composed, with known labels."""
