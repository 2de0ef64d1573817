"""Downloads: files of a known size and contents, from a published address, only when asked.

Owns the bound on what is read, the check before a file gets its name, and what is said when the
network or the disk fails. Knows nothing of particular data sets.
"""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from compress.errors import DataError, StorageError
from compress.io.atomic import part_of
from compress.tasks.idx import IdxFile, read_idx

__all__ = ["download"]

_TIMEOUT_S = 60
_BLOCK_BYTES = 1 << 16
# gzip never makes data larger than this: 5 bytes for each stored block of at most 32 KiB, a header
# and a trailer, with room for a file name.
_OVERHEAD_BYTES = 1 << 16


def download(
    files: Sequence[IdxFile], address: str, folder: Path, *, overhead_bytes: int = _OVERHEAD_BYTES
) -> None:
    """Fetch ``address`` + name of each file into ``folder``; one that is there and right is kept.

    A file is written beside its place, checked, and renamed: a reader sees a whole file or none.

    Args:
        files: what is published.
        address: of the folder that they are published in, with its last slash.
        folder: where they go.
        overhead_bytes: by how much what is served may be larger than a file unpacked.

    Raises:
        DataError: the address cannot be reached, or what it serves is not the published file.
        StorageError: the folder cannot be written.
    """
    for file in files:
        path = folder / file.name
        if not _is_right(path, file):
            _fetch(address + file.name, path, file, overhead_bytes)


def _is_right(path: Path, file: IdxFile) -> bool:
    try:
        read_idx(path, file)
    except DataError:
        return False
    return True


def _fetch(url: str, path: Path, file: IdxFile, overhead_bytes: int) -> None:
    beside = part_of(path)
    contents = _served(url, file.size_bytes + overhead_bytes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(contents)
        read_idx(beside, file)
        beside.replace(path)
    except DataError as error:
        raise DataError(f"{url}: what was downloaded is not the published file ({error})") from None
    except OSError as error:
        raise StorageError(
            f"{path}: could not be written ({error.strerror or error}); free space or give another "
            "`folder`."
        ) from error
    finally:
        # A disk that refused to write may refuse this too; the first refusal is the one to tell.
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _served(url: str, limit_bytes: int) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            contents: bytes = response.read(limit_bytes + 1)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{url}: could not be downloaded ({_reason(error)}); check the connection, or fetch "
            "the file by other means and give its folder as `folder`."
        ) from error
    if len(contents) > limit_bytes:
        raise DataError(
            f"{url}: serves more than {limit_bytes:,} bytes, so it is not the published file."
        )
    return contents


def _reason(error: Exception) -> object:
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it is an open response, too
        return error
    return error.reason if isinstance(error, urllib.error.URLError) else error
