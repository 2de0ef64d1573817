"""Backends: how a candidate becomes a file that a runtime runs. One folder each."""

from __future__ import annotations

from pathlib import Path

from compress.backends.base import Backend, check_formats, check_open, files_beside
from compress.backends.onnx.backend import ONNX

__all__ = [
    "BACKENDS",
    "ONNX",
    "Backend",
    "backend_of_file",
    "check_formats",
    "check_open",
    "files_beside",
]

#: All of them.
BACKENDS: tuple[Backend, ...] = (ONNX,)


def backend_of_file(path: Path) -> Backend:
    """The backend that a file is of, by the end of its name."""
    return next(backend for backend in BACKENDS if path.name.endswith(backend.suffix))
