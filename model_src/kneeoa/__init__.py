"""Knee-osteoarthritis grading: radiograph bytes in, eight grades per knee out."""

__version__ = "0.3.0"
