"""Silence for libraries that log, warn and print on their way; everything is put back."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """While open, nothing is logged, warned or printed; exceptions pass.

    The root logger's handlers are restored too: ``logging.info(...)``, which onnxruntime's
    quantizer calls, installs one on first use.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.manager.disable
    sink = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(sink))
        stack.enter_context(contextlib.redirect_stderr(sink))
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)
            root.handlers[:] = handlers
