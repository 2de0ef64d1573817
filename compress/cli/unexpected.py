"""Errors that no command foresaw, as a sentence."""

from __future__ import annotations

import errno

__all__ = ["exit_code", "in_a_sentence"]

_FAILED, _WRONG = 1, 2
# What only a path that was given can be the cause of.
_OF_PATHS = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)

# What to do where the system refuses something.
_FIXES = {
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs: all open files of this machine are in use",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "give one that you may use",
}


def in_a_sentence(error: Exception) -> str:
    """What was refused by the system, and what to do; of another error, that there is a bug."""
    if not isinstance(error, OSError):
        return (
            f"unexpected {type(error).__name__}: {error} (this should not happen; --debug shows "
            "where it did)."
        )
    what = error.strerror or str(error) or type(error).__name__
    place = error.filename or "an output, such as what is printed"
    fix = _FIXES.get(error.errno or 0, "--debug shows where")
    return f"{place}: refused by the system ({what}); {fix}."


def exit_code(error: Exception) -> int:
    """2 where the system refused a path that cannot be, as a wrong command line's; else 1."""
    return _WRONG if isinstance(error, OSError) and error.errno in _OF_PATHS else _FAILED
