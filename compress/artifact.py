"""Artifact: one lowered file, and how its target wanted it encoded.

Plain data, no torch: devices and reports read these too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "EXTERNAL_DATA",
    "MODULES",
    "Artifact",
    "Census",
    "Lowering",
    "OpenAxis",
    "Parity",
    "file_sha256",
    "model_files",
    "modules_file",
]


#: What is appended to a model's name for its external data, and for the note of its modules.
EXTERNAL_DATA, MODULES = ".data", ".modules.json"

#: An axis of all inputs that a file may leave open: 0, or 1 of texts.
OpenAxis = Literal["batch", "length"]

# An exporter takes an axis of size 1 for one that is always that.
_LEAST_OPEN = 2


@dataclass(frozen=True)
class Lowering:
    """How one target wants numerics encoded.

    ``avoid_saturation`` bounds the weight grid so that no pair of int8 products can overflow the
    16-bit intermediate of ``vpmaddubsw`` (x86 without VNNI); it costs no time. ``refused`` names
    the formats that the runtime does not compute as they are meant, each with what it does instead.
    ``open`` names the axes that the file leaves open; ``batch`` is then one of many.
    """

    batch: int = 1
    opset: int = 20
    avoid_saturation: bool = False
    refused: tuple[tuple[str, str], ...] = ()
    open: tuple[OpenAxis, ...] = ()

    @property
    def traced(self) -> int:
        """The batch that a graph is made at."""
        return max(_LEAST_OPEN, self.batch) if "batch" in self.open else self.batch

    def facts(self) -> dict[str, Any]:
        """Its fields by name, less what is open where nothing is."""
        return {name: value for name, value in vars(self).items() if value or name != "open"}


@dataclass(frozen=True)
class Census:
    """What an ONNX file is made of.

    ``operators`` counts nodes by type, those in bodies and local functions too; ``weight_bytes`` is
    what constants take in the file, by dtype (``{"int8": 13962, "int32": 640}``); ``graph_bytes``
    is everything else in it.
    ``macs`` counts multiply-accumulates of one sample, ``int8_macs`` those that run on int8 kernels
    once onnxruntime has optimized the graph, ``float_macs`` the others by operator;
    ``float_islands`` names float operators that stand between int8 ones in that optimized graph.
    ``weights`` is how many numbers the constants hold, ``nonzero_weights`` how many of them are not
    zero, ``float_weights`` how many are float32 or float64, by the operator that reads them.
    ``notes`` say what of all this is a guess.
    """

    operators: dict[str, int]
    weight_bytes: dict[str, int]
    graph_bytes: int
    macs: int
    int8_macs: int
    nonzero_weights: int
    float_islands: tuple[str, ...] = ()
    macs_by_operator: dict[str, int] = field(default_factory=dict)
    float_macs: dict[str, int] = field(default_factory=dict)
    weights: int = 0
    float_weights: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def int8_mac_fraction(self) -> float:
        """Share of multiply-accumulates computed in int8, 0 to 1."""
        return self.int8_macs / self.macs if self.macs else 0.0


@dataclass(frozen=True)
class Parity:
    """How far an artifact is from the (simulated) module it was made from.

    ``agreement`` is the share of samples with the same top-1 class (NaN for outputs without
    classes), ``max_error`` the largest absolute difference of an output, ``sqnr_db`` the
    signal-to-noise ratio in decibel (``None`` where the outputs are bitwise equal), ``samples`` how
    many inputs were compared, ``r_squared`` the share of the variance of the outputs that the
    artifact explains (the coefficient of determination). Of outputs that are no floats,
    ``agreement`` is the share of equal values, and ``r_squared`` 1 less the share that differs over
    that which differs between samples.

    Of several outputs these are the numbers of the one that is nearest to its bound; ``outputs``
    has those of each, by name.
    """

    agreement: float
    max_error: float
    sqnr_db: float | None
    samples: int
    r_squared: float = 1.0
    outputs: Mapping[str, Parity] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """One lowered file. ``path`` is absolute; ``bytes`` includes external data files.

    ``outputs`` are the names that the model has for what the file gives, in the file's order; the
    file may call one otherwise whose name an input has. Of a model that returns one tensor it is
    ``output``.
    """

    path: Path
    sha256: str
    bytes: int
    lowering: Lowering
    census: Census
    parity: Parity | None = None
    warnings: tuple[str, ...] = field(default=())
    outputs: tuple[str, ...] = ("output",)

    def to_json(self) -> dict[str, Any]:
        """The ``artifact`` block of ``record.json``; the record adds the path."""
        return {
            "sha256": self.sha256,
            "bytes": self.bytes,
            "int8_mac_fraction": self.census.int8_mac_fraction,
            "operators": self.census.operators,
            "weight_bytes": self.census.weight_bytes,
            "graph_bytes": self.census.graph_bytes,
            "nonzero_weights": self.census.nonzero_weights,
            "float_islands": list(self.census.float_islands),
            "float_macs": self.census.float_macs,
            **({"outputs": list(self.outputs)} if len(self.outputs) > 1 else {}),
            **({"open": list(self.lowering.open)} if self.lowering.open else {}),
        }


def model_files(path: Path) -> list[Path]:
    """The files of an ONNX model: itself, and its external data beside it (``NAME.data``)."""
    beside = path.with_name(path.name + EXTERNAL_DATA)
    # A pipe of that name would be waited for.
    return [path, beside] if os.path.isfile(beside) else [path]


def modules_file(path: Path) -> Path:
    """Where lowering notes which module each node of an artifact came from.

    JSON: ``sha256`` of the artifact and ``modules``, by node name. Not a part of the artifact,
    whose names are short to keep it small.
    """
    return path.with_name(path.name + MODULES)


def file_sha256(path: Path) -> str:
    """Hex digest over the model's files, in order."""
    digest = hashlib.sha256()
    for part in model_files(path):
        with part.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
