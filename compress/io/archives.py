"""Zip archives of strangers: looked at before anything in them is unpacked.

A small archive may claim millions of members, or unfold to more than a disk holds. No torch.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from compress.io.files import Refusal, named, size_words

__all__ = ["check_stored", "open_archive"]

# Some 80,000 members; reading the list of them takes ten times this.
_MOST_DIRECTORY_BYTES = 8 << 20
_TAIL_BYTES = (1 << 16) + 128
_ENCRYPTED = 0x1


def open_archive(
    stream: BinaryIO, path: Path, error: Refusal, *, most_bytes: int | None = None
) -> zipfile.ZipFile:
    """The archive in ``stream``, once its list of members is seen to be in proportion.

    Args:
        stream: of a regular file, or of bytes.
        path: for sentences.
        error: what is raised.
        most_bytes: that its members may unfold to; ``None`` where that is looked at later.

    Raises:
        CompressError: of the class ``error``: no archive, too many or encrypted members, one that
            is there twice, or more than may be unfolded.
    """
    size = stream.seek(0, 2)
    if _directory_bytes(stream, size) > _MOST_DIRECTORY_BYTES:
        raise error(f"{named(path)}: it lists more members than are taken from an archive.")
    try:
        stream.seek(0)
        archive = zipfile.ZipFile(stream)
    except Exception as cause:  # zipfile raises errors of many kinds on damaged files
        raise error(f"{named(path)}: a damaged zip archive ({named(cause)}).") from cause
    if problem := _problem(archive.infolist(), most_bytes):
        raise error(f"{named(path)}: {problem}.")
    return archive


def check_stored(archive: zipfile.ZipFile, path: Path, size: int, error: Refusal) -> None:
    """Check that nothing is compressed, so that it takes no more memory than the file.

    Raises:
        CompressError: of the class ``error``: a compressed member, or members that overlap.
    """
    members = archive.infolist()
    packed = [one for one in members if one.compress_type != zipfile.ZIP_STORED]
    if packed:
        name = named(packed[0].filename)
        raise error(f"{named(path)}: its member {name!r} is compressed, which torch never does.")
    total = sum(max(one.file_size, one.compress_size) for one in members)
    if total > size:
        raise error(
            f"{named(path)}: its members have {size_words(total)} together, and the file "
            f"{size_words(size)}."
        )


def _problem(members: list[zipfile.ZipInfo], most_bytes: int | None) -> str:
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        return f"it has the member {named(twice)!r} twice"
    if any(member.flag_bits & _ENCRYPTED for member in members):
        return "it is encrypted"
    total = sum(member.file_size for member in members)
    if most_bytes is not None and total > most_bytes:
        return f"it unfolds to {size_words(total)}, and at most {size_words(most_bytes)} are taken"
    return ""


def _directory_bytes(stream: BinaryIO, size: int) -> int:
    """What the list of members takes, as the end of the archive says; 0 of what is none."""
    stream.seek(max(0, size - _TAIL_BYTES))
    tail = stream.read(_TAIL_BYTES)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        return 0
    plain = int(struct.unpack_from("<I", tail, end + 12)[0])
    large = tail.rfind(b"PK\x06\x06", 0, end)
    if large < 0 or len(tail) < large + 48:
        return plain if plain != 0xFFFFFFFF else 0
    return int(struct.unpack_from("<Q", tail, large + 40)[0])
