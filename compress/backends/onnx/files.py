"""Writing an ONNX model to disk, beside its weights where they are too large for one file."""

from __future__ import annotations

from pathlib import Path

import onnx

from compress.errors import StorageError

__all__ = ["EXTERNAL_ABOVE_BYTES", "save"]

#: Protobuf cannot hold 2 GiB; the rest is left for the graph.
EXTERNAL_ABOVE_BYTES = (2 << 30) - (64 << 20)


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
