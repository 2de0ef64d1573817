"""Starters: recipes written for a user's own model and data, by what these are.

``data.py`` says which task a path is for, ``model.py`` finds the net and fills it, ``images.py``
finds the size and the numbers that it takes images in, and ``recipe.py`` writes what was found.
"""

from compress.starters.recipe import Starter, starter_for

__all__ = ["Starter", "starter_for"]
