"""Releases: what changed for a deployed model between two runs."""

from compress.releases.changes import Changes, changes_between
from compress.releases.deployed import Deployed

__all__ = ["Changes", "Deployed", "changes_between"]
