"""Talks to a kneeoa server: asks for grades, registers models."""
