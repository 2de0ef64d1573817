"""Measure artifacts: accuracy, latency and memory on a target. Imports no torch."""
