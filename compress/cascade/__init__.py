"""Cascades: a student answers, and what it is not sure of goes back to a larger model."""
