"""Every operator, with every attribute that changes it, in every format: right, or refused by name.

The bounds are stated here and not taken from what lowering demands: the file, run by a session of
its own, is compared with the float module.
"""

import numpy as np
import onnxruntime as ort
import pytest
import torch

import compress.backends.onnx.float_graph
from compress.errors import ParityError

from .formats import FORMATS, exported_once, lower_in
from .operators import OPERATORS, inputs, make

#: The most that a file may be off, as a share of the variance of the float module's outputs.
BOUNDS = {
    "float32": 1e-9,
    "int8": 0.02,
    "int16": 0.01,
    "dynamic": 0.01,
    "integer weights": 0.01,
    "float8": 0.06,  # three bits of mantissa
    "float16": 1e-3,
}
#: What is refused, by the words that name it.
REFUSED = {"batch norm of the batch": r"the module 'middle' \(BatchNorm2d\) mixes the samples"}

# Each in int8 and in one of the other formats, which go round; in the rest before a release.
OTHERS = [format for format in FORMATS if format != "int8"]
CASES = []
for place, operator in enumerate(OPERATORS):
    taken = OTHERS[place % len(OTHERS)]
    rest = [format for format in OTHERS if format != taken]
    CASES += [
        pytest.param(operator, ["int8", taken], id=operator),
        pytest.param(operator, rest, id=f"{operator}-others", marks=pytest.mark.exhaustive),
    ]


def noise_of(path, x, expected):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    made = np.concatenate([session.run(None, {name: row[None]})[0] for row in x.numpy()])
    return ((made - expected) ** 2).sum() / ((expected - expected.mean(0)) ** 2).sum()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize(("name", "formats"), CASES)
def test_a_file_computes_what_its_module_computes(name, formats, tmp_path, monkeypatch):
    once = exported_once(compress.backends.onnx.float_graph.export)
    monkeypatch.setattr(compress.backends.onnx.float_graph, "export", once)
    module, x = make(name), inputs()
    with torch.no_grad():
        expected = module(x).numpy()
    for format in formats:
        path = tmp_path / f"{format}.onnx"
        if name in REFUSED:
            with pytest.raises(ParityError, match=REFUSED[name]):
                lower_in(format, module, x, path)
            continue
        made = lower_in(format, module, x, path)
        assert noise_of(path, x, expected) <= BOUNDS[format], (format, made.parity)
