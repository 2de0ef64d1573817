"""The program that devices run: ``ondevice/`` packed into one file that Python executes.

The same source gives the same bytes, so that a device that has the file already is not sent it
again. It is made from this installation, never taken out of a bundle.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from compress.io.atomic import write_atomically
from compress.measure import ondevice

__all__ = ["PROGRAM", "program_bytes", "write_program"]

#: What the file is called, beside a bundle and on a device.
PROGRAM = "compresskit-device.pyz"

_ROOM = "compress/measure/ondevice"
_MAIN = """\
import sys

if sys.version_info < (3, 9):
    sys.exit("compresskit-device needs Python 3.9 or newer; this is %s." % sys.version.split()[0])

from compress.measure.ondevice.program import main

sys.exit(main())
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def program_bytes() -> bytes:
    """The content of the program: a zip archive with a line before it, nothing compressed.

    What compression makes of the same bytes differs between versions of zlib.
    """
    folder = Path(ondevice.__file__).parent
    files = {
        "__main__.py": _MAIN.encode(),
        "compress/__init__.py": b"",
        "compress/measure/__init__.py": b"",
        **{
            f"{_ROOM}/{path.relative_to(folder).as_posix()}": path.read_bytes()
            for path in folder.rglob("*.py")
        },
    }
    stream = io.BytesIO()
    stream.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16
            info.create_system = 3  # of Unix, whatever system this is
            archive.writestr(info, content)
    return stream.getvalue()


def write_program(path: Path) -> None:
    """Write the program to ``path``, whole or not at all.

    Raises:
        StorageError: the disk refused.
    """
    write_atomically(path, program_bytes())
