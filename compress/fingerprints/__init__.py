"""Fingerprints: digests of all that a result depends on, or a clause that says why there is none.

Code counts by what it does, data by content, files by checksum, libraries by version. Everything
here gives the same in every process: no address, hash seed or order of a set goes into a digest.
"""

from __future__ import annotations

from compress.fingerprints.arrays import DataDigestCache
from compress.fingerprints.code import code_fingerprint, module_definition
from compress.fingerprints.content_walk import Unstable
from compress.fingerprints.data import data_fingerprint
from compress.fingerprints.files import FileDigestCache, file_fingerprint
from compress.fingerprints.named import leaves, named_files
from compress.fingerprints.package import package_source

__all__ = [
    "DataDigestCache",
    "FileDigestCache",
    "Unstable",
    "code_fingerprint",
    "data_fingerprint",
    "file_fingerprint",
    "leaves",
    "module_definition",
    "named_files",
    "package_source",
]
