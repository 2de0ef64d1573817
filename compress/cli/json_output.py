"""One JSON object on standard output, for ``--json``: of a result, or of what went wrong.

Standard output holds nothing else then: tables are not printed, and what others print meanwhile
goes to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

TYPE_CHECKING = False  # see the package: starting up is to be cheap
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "EXIT_CODES",
    "asked",
    "json_argument",
    "others_to_stderr",
    "print_failure",
    "print_json",
]

#: What every exit code means.
EXIT_CODES = {
    0: "done",
    1: "data, a stage or a measurement failed; what was done is kept",
    2: "the command line or the recipe is wrong",
    3: "done, but the budget is missed",
}

_INTERRUPTED = "interrupted"
_STDOUT, _STDERR = 1, 2


def json_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument(
        "--json",
        action="store_true",
        dest="as_json",
        help="print one JSON object on standard output, of failures too, and nothing else",
    )


def asked(arguments: argparse.Namespace) -> bool:
    """Whether the command line has ``--json``, of a command that knows it."""
    return bool(getattr(arguments, "as_json", False))


@contextlib.contextmanager
def others_to_stderr(arguments: argparse.Namespace) -> Iterator[None]:
    """What code of others prints while a command works goes to standard error, with ``--json``."""
    if not asked(arguments):
        yield
        return
    with contextlib.redirect_stdout(sys.stderr), _descriptor_to_stderr():
        yield


@contextlib.contextmanager
def _descriptor_to_stderr() -> Iterator[None]:
    """Also what is written past Python, by compiled libraries and processes that are started.

    The solver in some versions of scipy prints a line that no option turns off
    (https://github.com/ERGO-Code/HiGHS/issues/2783).
    """
    if not _is_open(_STDOUT):
        yield
        return
    # Before the copy of standard output, which would else take the number of a closed one.
    nowhere = None if _is_open(_STDERR) else os.open(os.devnull, os.O_WRONLY)
    saved = os.dup(_STDOUT)
    os.dup2(_STDERR if nowhere is None else nowhere, _STDOUT)
    try:
        yield
    finally:
        _flush_compiled()
        os.dup2(saved, _STDOUT)
        os.close(saved)
        if nowhere is not None:
            os.close(nowhere)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _flush_compiled() -> None:
    """Have the C library write what it holds back, which it would do at the end of the process."""
    if os.name == "posix":
        import ctypes

        ctypes.CDLL(None).fflush(None)


def print_json(result: Mapping[str, object], exit_code: int = 0) -> None:
    """Print a result with its exit code and what that means."""
    import json

    meaning = EXIT_CODES.get(exit_code, "failed")
    if result.get("status") == _INTERRUPTED:
        meaning = "interrupted; what was done is kept"
    content = {"schema": 1, **result, "exit_code": exit_code, "meaning": meaning}
    print(json.dumps(content, indent=1))


def print_failure(arguments: argparse.Namespace, error: str, exit_code: int) -> None:
    """Print what went wrong, with ``--json``; ``status`` says whether it was interrupted."""
    if not asked(arguments):
        return
    status = _INTERRUPTED if error.startswith("interrupted") else "failed"
    result: dict[str, object] = {"command": arguments.command, "status": status, "error": error}
    print_json(result, exit_code)
