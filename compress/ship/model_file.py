"""The shipped ONNX file: what it takes and gives, running it, and what it says of itself.

Metadata are put behind the measured file: a message of protobuf that comes after another adds to
it. So the shipped file begins with the measured one, byte for byte, whatever its size.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.artifact import model_files
from compress.backends.onnx.session import open_session, run
from compress.errors import LoweringError

__all__ = ["ModelFile", "Port", "write_model"]

Array = np.ndarray[Any, Any]

_TYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class Port:
    """An input or an output of a file; a size that is open is a text."""

    name: str
    type: str
    shape: tuple[int | str, ...]


class ModelFile:
    """A file that is opened for running.

    Args:
        path: of the file.
        batch: samples of one run, where the file leaves them open.

    Raises:
        LoweringError: onnxruntime cannot load it.
    """

    def __init__(self, path: Path, batch: int) -> None:
        self._session = open_session(path)
        self.inputs = [_port(value) for value in self._session.get_inputs()]
        self.outputs = [_port(value) for value in self._session.get_outputs()]
        first = self.inputs[0].shape[:1]
        self.is_open = not first or isinstance(first[0], str)
        self.batch = batch if self.is_open else int(first[0])

    def fitted(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What of some inputs the file takes, in its types; one without a name is its only one."""
        if list(inputs) == [""]:
            inputs = {self.inputs[0].name: inputs[""]}
        return {port.name: np.asarray(inputs[port.name], _TYPES[port.type]) for port in self.inputs}

    def predict(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs for all samples; as on devices the last sample fills the last batch up.

        Raises:
            LoweringError: onnxruntime cannot run it.
        """
        count = len(next(iter(inputs.values())))
        parts = []
        for start in range(0, count, self.batch):
            rows = np.minimum(np.arange(start, start + self.batch), count - 1)
            found = run(self._session, None, {name: a[rows] for name, a in inputs.items()})
            parts.append([array[: count - start] for array in found])
        return [np.concatenate(part) for part in zip(*parts, strict=True)]


def write_model(source: Path, place: Path, says: Mapping[str, object]) -> Sequence[Path]:
    """Write ``source`` to ``place`` with what it ``says`` of itself; returns the files.

    External data keep their name, by which the file finds them.

    Raises:
        OSError: the disk refused.
    """
    own, *beside = model_files(source)
    place = place.with_name(own.name) if beside else place
    metadata = onnx.ModelProto()
    for key, value in says.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        metadata.metadata_props.add(key=f"compresskit.{key}", value=text)
    shutil.copyfile(own, place)
    with place.open("ab") as stream:
        stream.write(metadata.SerializeToString(deterministic=True))
    for part in beside:
        shutil.copyfile(part, place.with_name(part.name))
    return [place, *(place.with_name(part.name) for part in beside)]


def _port(value: Any) -> Port:
    kind = str(value.type).removeprefix("tensor(").removesuffix(")")
    if kind not in _TYPES:
        raise LoweringError(
            f"the model takes or gives {value.type} ({value.name}), and no numbers."
        )
    shape = (size if isinstance(size, int) else str(size or "any") for size in value.shape)
    return Port(str(value.name), kind, tuple(shape))
