"""Arrays: to files for a worker, and from a file that someone gives."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal, NoReturn

import numpy as np

from compress.errors import DataError
from compress.io.archives import open_archive
from compress.io.files import memory_bytes, named, opened
from compress.io.scratch import scratch

__all__ = ["on_disk", "read_arrays"]

Array = np.ndarray[Any, Any]

_ZIP, _NPY = b"PK", b"\x93NUMPY"
_MEMORY_BYTES = 8 << 30  # of a machine that does not say
_HEADERS = MappingProxyType(
    {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
)


@contextmanager
def on_disk(arrays: Mapping[str, Array]) -> Iterator[dict[str, str]]:
    """Paths of ``.npy`` files with ``arrays``, for as long as the context lasts."""
    with scratch() as folder:
        files = {}
        for place, (name, array) in enumerate(arrays.items()):
            files[name] = f"{folder}/input-{place}.npy"
            np.save(files[name], array, allow_pickle=False)
        yield files


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a ``.npz`` file, by name; nothing in it is run.

    Raises:
        DataError: it is no such file, is damaged, or holds something else than arrays.
    """
    with opened(path, DataError) as stream:
        if not stream.read(len(_ZIP)).startswith(_ZIP):
            _refuse_other(path, stream)
        archive = open_archive(stream, path, DataError, most_bytes=_most_bytes())
        with archive:
            arrays = {
                member.filename.removesuffix(".npy"): _array(path, archive, member)
                for member in archive.infolist()
            }
    if not arrays:
        raise DataError(f"{path}: there is no array in it; save them with np.savez(FILE, NAME=it).")
    return arrays


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    try:
        with archive.open(member) as stream:
            return _parsed(path, stream, member.file_size)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(
            f"{named(path)}: its arrays do not fit into this machine's memory."
        ) from error
    except Exception as error:  # of a damaged file numpy, zipfile and zlib raise all kinds
        raise _other(path) from error


def _parsed(path: Path, stream: IO[bytes], size: int) -> Array:
    """An array whose header asks for what follows it, no more and no less."""
    shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
    if dtype.hasobject:
        raise DataError(
            f"{named(path)}: it holds Python objects, which are not read; save texts as an array "
            "of dtype str, and numbers as numbers."
        )
    content, wanted = stream.read(size), math.prod(shape) * dtype.itemsize
    if len(content) != wanted or min(shape, default=0) < 0:
        raise DataError(
            f"{named(path)}: one of its arrays should have {wanted:,} bytes, and {len(content):,} "
            "are there; save it again."
        )
    order: Literal["F", "C"] = "F" if fortran else "C"
    return (
        np.frombuffer(content, dtype).reshape(shape, order=order)
        if wanted
        else np.zeros(shape, dtype)
    )


def _refuse_other(path: Path, stream: IO[bytes]) -> NoReturn:
    stream.seek(0)
    if stream.read(len(_NPY)) == _NPY:
        raise DataError(
            f"{named(path)}: one array without a name; save it with np.savez(FILE, NAME=it)."
        )
    raise _other(path)


def _other(path: Path) -> DataError:
    return DataError(
        f"{named(path)}: no .npz file that can be read (it is another kind, or damaged)."
    )


def _most_bytes() -> int:
    return (memory_bytes() or _MEMORY_BYTES) // 2
