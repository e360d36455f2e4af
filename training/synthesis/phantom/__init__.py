"""Draws synthetic knee radiographs with all eight labels controlled and exact geometry."""

from training.synthesis.phantom.film import draw_film, draw_joint
from training.synthesis.phantom.grades import kl_of, sample_grades

__all__ = ["draw_film", "draw_joint", "kl_of", "sample_grades"]
