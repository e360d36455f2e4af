"""Finds the knee joint and its six key points: the two-level cascade of Wang et al. 2021."""
