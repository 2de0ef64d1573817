"""Pairs of images for the task ``image-to-image``: what a net gets, and what a teacher makes of it.

Pairs are made once, kept on disk under a key of all that they depend on, and read from there by any
run: a teacher that takes seconds for an image is never in the way of training.
"""
