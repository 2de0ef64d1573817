"""Running ONNX files with onnxruntime. No torch: devices and reports take a census too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from compress.backends.onnx.files import save
from compress.errors import LoweringError
from compress.io.scratch import scratch

__all__ = ["open_exposed", "open_session", "run"]

_FATAL_ONLY = 4

Array = np.ndarray[Any, np.dtype[Any]]


def open_session(path: Path, options: Any = None) -> Any:
    """A session on the CPU with one thread; by default fully optimized, as targets open it.

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


def open_exposed(model: onnx.ModelProto, names: Sequence[str], level: Any) -> Any:
    """A session whose outputs are the tensors of ``model`` called ``names``.

    Args:
        model: left as it was.
        names: of outputs, or of tensors between its operators.
        level: of ``onnxruntime.GraphOptimizationLevel``.

    Raises:
        LoweringError: onnxruntime cannot load the graph.
    """
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    del exposed.graph.value_info[:]  # an edited graph's may be out of date, and nothing needs it
    known = {output.name: output for output in model.graph.output}
    exposed.graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    with scratch() as folder:
        path = Path(folder) / "model.onnx"
        save(exposed, path)
        return open_session(path, options)


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
