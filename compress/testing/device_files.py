"""The programs that run on devices, copied to ``benchmarks/``, from where people take them.

::

    python -m compress.testing.device_files

They are the package's own files, byte for byte; a test holds them together.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import compress

__all__ = ["COPIES", "copy", "stale"]

_PACKAGE = Path(compress.__file__).parent

#: Name in ``benchmarks/``, and where it comes from.
COPIES = {
    "driver.py": _PACKAGE / "measure" / "ondevice" / "driver.py",
    "worker.py": _PACKAGE / "measure" / "ondevice" / "worker.py",
    "run.py": _PACKAGE / "device" / "run.py",
}


def stale(folder: Path) -> list[str]:
    """Names of the copies in ``folder`` that are missing or differ."""
    return [
        name
        for name, source in COPIES.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != source.read_bytes()
    ]


def copy(folder: Path) -> list[str]:
    """Refresh the copies in ``folder``; the names of those that were stale."""
    names = stale(folder)
    for name in names:
        shutil.copyfile(COPIES[name], folder / name)
    return names


if __name__ == "__main__":
    print("\n".join(copy(_PACKAGE.parent / "benchmarks")) or "all are up to date")
