"""Grades a main joint on eight tasks: the Siamese network with adaptive gated fusion of Wang et al. 2021."""
