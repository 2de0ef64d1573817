"""IDX: the file format of MNIST and the data sets made like it, gzipped.

Owns reading such a file safely: what is read is bounded by what is expected, and every byte is
checked before it is used. Knows nothing of particular data sets, and nothing of torch.

A file is a magic number (two zero bytes, the type of an item, the number of dimensions), the size
of each dimension as 32 bits, most significant byte first, then the items (LeCun, Cortes and
Burges, "The MNIST database").
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.errors import DataError
from compress.io.files import named, opened

__all__ = ["IdxFile", "read_idx"]

_UNSIGNED_BYTE = 0x08


@dataclass(frozen=True)
class IdxFile:
    """What a gzipped IDX file of unsigned bytes must be.

    ``sha256`` is that of the decompressed bytes, header included: packers may compress anew.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def header(self) -> bytes:
        """The bytes before the first item."""
        sizes = b"".join(size.to_bytes(4, "big") for size in self.shape)
        return bytes([0, 0, _UNSIGNED_BYTE, len(self.shape)]) + sizes

    @property
    def size_bytes(self) -> int:
        """Size once decompressed."""
        return len(self.header) + math.prod(self.shape)


def read_idx(path: Path, expected: IdxFile) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The items of the file at ``path``, shape ``expected.shape``.

    Raises:
        DataError: the file is missing, is not gzip, is cut short or too long, or has another header
            or other contents than ``expected`` says.
    """
    payload = _decompressed(path, expected.size_bytes)
    header = expected.header
    if payload[: len(header)] != header:
        raise _damaged(
            path,
            f"its header is {payload[: len(header)].hex()} where {expected.name} has "
            f"{header.hex()} (bytes of shape {expected.shape})",
        )
    if len(payload) != expected.size_bytes:
        longer = len(payload) > expected.size_bytes
        given = "more than that" if longer else f"{len(payload):,}"
        raise _damaged(path, f"it holds {given}, not {expected.size_bytes:,} bytes")
    if hashlib.sha256(payload).hexdigest() != expected.sha256:
        raise _damaged(path, "its SHA-256 is not the published one")
    items = np.frombuffer(payload, dtype=np.uint8, offset=len(header))
    return items.reshape(expected.shape)


def _decompressed(path: Path, size_bytes: int) -> bytes:
    """At most one byte more than ``size_bytes``, however much the file would expand to."""
    with opened(path, DataError) as packed:
        try:
            with gzip.open(packed) as stream:
                return stream.read(size_bytes + 1)
        except EOFError:
            raise _damaged(path, "it ends too early") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise _damaged(path, f"it is not a gzip file ({error})") from None


def _damaged(path: Path, problem: str) -> DataError:
    return DataError(
        f"{named(path)}: not the file it should be: {problem}; delete it and get the data set "
        "again."
    )
