"""The file that a worker process executes.

Isolated Python finds installed packages only, which may be another version of this one, or none:
so this package is imported from where this file lies, and from nowhere else.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path


def import_from(root: str) -> None:
    """Import ``compress`` from the folder ``root``, whatever ``sys.path`` has."""
    spec = importlib.machinery.PathFinder.find_spec("compress", [root])
    assert spec is not None
    assert spec.loader is not None
    sys.modules["compress"] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


if __name__ == "__main__":
    import_from(str(Path(__file__).absolute().parents[3]))
    from compress.measure.ondevice.worker import main

    main(sys.argv[1:])
