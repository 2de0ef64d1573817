"""Golden census of two nets: what lowering makes of them, down to the kernels.

When a change is meant, write the files anew and read the difference::

    python tests/lower/test_golden.py

Bytes of the graph are left out: they follow the versions of the exporter.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.candidate import Candidate
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule
from compress.testing.nets import NETS

FOLDER = Path(__file__).parent / "golden"
CASES = ("resnet", "attention")


def census(name: str, folder: Path) -> dict:
    net = NETS[name]
    module = net.build()
    module.train()(net.example(16))  # so that batch norms have something to fold
    format = LayerFormat(weights="int8", activations="int8")
    candidate = Candidate.of(module, net.example(2))
    made = lower(
        replace(candidate, numerics=Numerics((QuantRule(format=format),))),
        Lowering(avoid_saturation=True),
        calibration=[net.example(16)],
        check=net.example(16),
        path=folder / "model.onnx",
    )
    return {
        "operators": made.census.operators,
        "weight_bytes": made.census.weight_bytes,
        "macs": made.census.macs,
        "int8_macs": made.census.int8_macs,
        "float_islands": list(made.census.float_islands),
        "warnings": list(made.warnings),
    }


@pytest.mark.parametrize("name", CASES)
def test_the_census_is_the_recorded_one(name, tmp_path):
    recorded = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert census(name, tmp_path) == recorded


def regenerate() -> None:
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(census(name, Path(folder)), indent=2) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    regenerate()
