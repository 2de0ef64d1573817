"""The ONNX backend: what lowers candidates for every runtime that reads ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compress.artifact import EXTERNAL_DATA, MODULES, Artifact, Census, Lowering, model_files

if TYPE_CHECKING:
    from compress.candidate import Candidate
    from compress.modules.inputs import Inputs

__all__ = ["ONNX", "OnnxBackend"]


@dataclass(frozen=True)
class OnnxBackend:
    """Files of ONNX; see :class:`compress.backends.base.Backend`."""

    name: str = "onnx"
    suffix: str = ".onnx"
    #: External data, and which module each node came from.
    beside: tuple[str, ...] = (EXTERNAL_DATA, MODULES)

    def lower(
        self,
        candidate: Candidate,
        lowering: Lowering,
        *,
        calibration: Sequence[Inputs],
        check: Inputs,
        path: Path,
    ) -> Artifact:
        """Write one checked ONNX file; see :func:`compress.backends.onnx.build.lower`."""
        from compress.backends.onnx.build import lower  # which loads torch

        return lower(candidate, lowering, calibration=calibration, check=check, path=path)

    def census(self, path: Path) -> Census:
        """What a file is made of, and what onnxruntime will run of it in int8."""
        from compress.backends.onnx.census import take_census

        return take_census(path)

    def files(self, path: Path) -> set[Path]:
        """The file, its ``NAME.data``, and the external data that it names."""
        from compress.backends.onnx.files import external_files

        return {part.resolve() for part in (*model_files(path), *external_files(path))}


ONNX = OnnxBackend()
