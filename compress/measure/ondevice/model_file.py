"""A model's file, before a runtime sees it: whether it is one, and why it cannot be parsed."""

from __future__ import annotations

import os
from typing import BinaryIO

from compress.measure.ondevice.jobs import JobError

__all__ = ["check_file", "why_unreadable"]

_MODEL_FIELDS = {*range(1, 9), 14, 20, 25, 26}  # of the message that an ONNX file is


def check_file(path: str) -> None:
    """Raise a :class:`JobError` that says so if there is no file with something in it."""
    if not os.path.exists(path):
        raise JobError("there is no such file.")
    if os.path.isdir(path):
        raise JobError("it is a folder; give the ONNX files in it.")
    if not os.path.isfile(path):
        raise JobError("it is no regular file.")
    if os.path.getsize(path) == 0:
        raise JobError("the file is empty.")


def why_unreadable(path: str) -> str:
    """What is wrong with a file that is not parsed, from the lengths of its outermost fields."""
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        while stream.tell() < size:
            key, length = _varint(stream), 0
            if key is None or key >> 3 not in _MODEL_FIELDS or key & 7 not in (0, 1, 2, 5):
                return "it is not an ONNX file."
            if key & 7 in (0, 2):
                length = _varint(stream) or 0
            skipped = {0: 0, 1: 8, 2: length, 5: 4}[key & 7]
            stream.seek(skipped, os.SEEK_CUR)
        missing = stream.tell() - size
    if missing:
        return f"the file is cut off: at least {missing} bytes are missing at its end."
    return "the file is damaged: it begins as an ONNX file does, and cannot be parsed."


def _varint(stream: BinaryIO) -> int | None:
    value, shift = 0, 0
    for byte in iter(lambda: stream.read(1), b""):
        value |= int(byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value
        if shift > 63:
            break
    return None
