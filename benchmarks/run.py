"""Measure a bundle on this device with the program of this checkout, which needs no installation.

::

    python3 benchmarks/run.py BUNDLE [--out RESULT.json] [--quick | --strict] [--threads N]

It needs Python 3.9 or newer, numpy and onnxruntime; see ``compress/measure/ondevice/program.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from compress.measure.ondevice.program import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
