"""Results under their keys: what was worked out once is found again, by any run and any process."""

from __future__ import annotations

from compress.cache.entry import CacheEntry, DamagedEntry, FileFacts
from compress.cache.store import Store, Usage
from compress.cache.upkeep import Removed, StoredResult, Verified

__all__ = [
    "CacheEntry",
    "DamagedEntry",
    "FileFacts",
    "Removed",
    "Store",
    "StoredResult",
    "Usage",
    "Verified",
]
