"""Results under their keys: what was worked out once is found again, by any run and any process."""

from __future__ import annotations

from compress.cache.entry import DamagedEntry, Entry, FileFacts
from compress.cache.store import Store, Usage
from compress.cache.upkeep import Kept, Removed, Verified

__all__ = [
    "DamagedEntry",
    "Entry",
    "FileFacts",
    "Kept",
    "Removed",
    "Store",
    "Usage",
    "Verified",
]
