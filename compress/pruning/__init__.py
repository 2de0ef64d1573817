"""Structured pruning: which channels go together, which to remove, and the proof of the cut."""
