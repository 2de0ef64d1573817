"""Arrays: to files for a worker, and from a file that someone gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from compress.errors import DataError

__all__ = ["on_disk", "read_arrays"]

Array = np.ndarray[Any, Any]


@contextmanager
def on_disk(arrays: Mapping[str, Array]) -> Iterator[dict[str, str]]:
    """Paths of ``.npy`` files with ``arrays``, for as long as the context lasts."""
    with TemporaryDirectory(prefix="compresskit-") as folder:
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
    try:
        # Opened here: numpy leaves a damaged one open.
        with path.open("rb") as stream:
            arrays = _named(path, np.load(stream, allow_pickle=False))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file.") from error
    except MemoryError as error:
        raise DataError(f"{path}: its arrays do not fit into this machine's memory.") from error
    except DataError:
        raise
    except Exception as error:  # of a damaged file numpy, zipfile and zlib raise all kinds
        if "Object arrays" in str(error):
            raise DataError(
                f"{path}: it holds Python objects, which are not read; save texts as an array of "
                "dtype str, and numbers as numbers."
            ) from error
        why = (isinstance(error, OSError) and error.strerror) or "it is another kind, or damaged"
        raise DataError(f"{path}: no .npz file that can be read ({why}).") from error
    if not arrays:
        raise DataError(f"{path}: there is no array in it; save them with np.savez(FILE, NAME=it).")
    return arrays


def _named(path: Path, loaded: Any) -> dict[str, Array]:
    if isinstance(loaded, np.ndarray):
        raise DataError(f"{path}: one array without a name; save it with np.savez(FILE, NAME=it).")
    with loaded:
        return {name: loaded[name] for name in loaded.files}
