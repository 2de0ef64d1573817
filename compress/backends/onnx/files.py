"""ONNX models on disk: writing one, and the files of external data that one names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx

from compress.errors import StorageError

__all__ = ["EXTERNAL_ABOVE_BYTES", "external_files", "save"]

#: Protobuf cannot hold 2 GiB; the rest is left for the graph.
EXTERNAL_ABOVE_BYTES = (2 << 30) - (64 << 20)
_MOST_ONNX_BYTES = 2**31 - 1  # what protobuf can hold


def save(
    model: onnx.ModelProto, path: Path, *, external_above_bytes: int = EXTERNAL_ABOVE_BYTES
) -> None:
    """Write ``model`` to ``path``, and its weights to ``NAME.data`` if they exceed the limit.

    Raises:
        StorageError: the disk refused.
    """
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    try:
        if weights <= external_above_bytes:
            path.write_bytes(model.SerializeToString(deterministic=True))
        else:
            onnx.save_model(
                model, str(path), save_as_external_data=True, location=f"{path.name}.data"
            )
    except OSError as error:
        raise StorageError(
            f"{path}: the model could not be written ({error.strerror or error}); free space or "
            "choose another folder."
        ) from error


def external_files(model: Path) -> set[Path]:
    """The files of external data that a model names, as far as they are there.

    Of what is no ONNX file there are none: whoever measures it says so.
    """
    if model.stat().st_size > _MOST_ONNX_BYTES:  # and reading it might take all memory
        return set()
    try:
        graph = onnx.load(model, load_external_data=False).graph
    except Exception:  # whatever protobuf raises for bytes that are none of its own
        return set()
    named = {
        model.parent / entry.value
        for tensor in _tensors(graph)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return {path for path in named if os.path.isfile(path)}


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield attribute.t
        yield from attribute.tensors
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)
