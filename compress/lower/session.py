"""Running ONNX files with onnxruntime. No torch: devices and reports take a census too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from compress.errors import LoweringError

__all__ = ["open_session", "run"]

_FATAL_ONLY = 4

Array = np.ndarray[Any, np.dtype[Any]]


def open_session(path: Path, options: Any = None) -> Any:
    """A session on the CPU with one thread; by default fully optimised, as targets open it.

    Raises:
        LoweringError: onnxruntime cannot load the file; carries its words.
    """
    options = options or ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    try:
        # Falling back would be to the same provider, with a banner on standard output.
        return ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's errors have no common class below this one
        words = " ".join(str(error).split())
        raise LoweringError(f"{path}: onnxruntime cannot load the model: {words}") from error


def run(
    session: Any, names: Sequence[str] | None, feeds: Mapping[str, Array], options: Any = None
) -> list[Array]:
    """The outputs called ``names`` (all, if ``None``) for one batch; ``options`` can end the run.

    Raises:
        LoweringError: onnxruntime cannot run the model; carries its words.
    """
    try:
        return list(session.run(names, dict(feeds), options))
    except Exception as error:  # as above
        words = " ".join(str(error).split())
        raise LoweringError(f"onnxruntime cannot run the model: {words}") from error
