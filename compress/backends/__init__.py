"""Backends: how a candidate becomes a file that a runtime runs. One folder each."""
