import numpy as np
import pytest
import torch
from torch import nn

from compress.artifact import Lowering
from compress.backends.onnx import ranges as module_under_test
from compress.backends.onnx.encoding import encode
from compress.backends.onnx.export import export
from compress.backends.onnx.feeds import batches
from compress.backends.onnx.ranges import observe
from compress.errors import LoweringError
from compress.quantization.numerics import Calibration, LayerFormat


def int8(method="minmax"):
    return LayerFormat(weights="int8", activations="int8", calibration=Calibration(method=method))


def float_values(model):
    return {
        value: int8() for node in model.graph for value in node.outputs if value.shape is not None
    }


def test_ranges_do_not_depend_on_how_tensors_are_grouped(exported, net):
    model, data = exported("unet"), [net("unet").inputs(3)]
    wanted = float_values(model)
    together = observe(model, wanted, data)
    apart = observe(model, wanted, data, group_bytes=1)
    assert together == apart
    assert len(together) == len(wanted)


@pytest.mark.parametrize("group_bytes", [1, 5000, 1 << 30])
def test_what_is_held_at_once_is_bounded_whatever_the_number_of_samples(
    group_bytes, exported, net, monkeypatch
):
    held = []
    run = module_under_test.run

    def recording(session, names, feeds):
        arrays = run(session, names, feeds)
        held.append((len(arrays), sum(a.nbytes for a in arrays)))
        return arrays

    monkeypatch.setattr(module_under_test, "run", recording)
    model = exported("unet")
    wanted = float_values(model)
    largest = max(4 * np.prod(v.shape.numpy()) for v in wanted)
    peaks = []
    for samples in (2, 20):
        held.clear()
        observe(model, wanted, [net("unet").inputs(samples)], group_bytes=group_bytes)
        peaks.append(max(size for _, size in held))
    assert peaks[0] == peaks[1] <= max(group_bytes, largest)


def test_calibration_memory_does_not_grow_with_samples(exported, net):
    import tracemalloc

    def peak(samples):
        # One sample again and again: with others, a histogram may widen just when memory peaks.
        model, data = exported("unet"), [net("unet").inputs(1)] * samples
        tracemalloc.start()
        observe(model, dict.fromkeys(float_values(model), int8("mse")), data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak_bytes

    peak(2)
    assert peak(64) < 1.1 * peak(4)


def test_int8_without_calibration_data_is_refused(exported, net, rule):
    formats = net("plain").formats(rule())
    with pytest.raises(LoweringError, match="int8 activations need calibration data, and none"):
        encode(exported("plain"), formats, [], avoid_saturation=True)


class Explodes(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.fc = inner, nn.Linear(3, 3)

    def forward(self, x):
        return self.fc(self.inner(x)).clamp(-1, 1)


class Exponential(nn.Module):
    def forward(self, x):
        return torch.exp(1000 * x)


@pytest.mark.parametrize(
    ("inner", "data", "message"),
    [
        (Exponential(), torch.ones(1, 3), r"the tensor '\w+' in the module 'inner' is not finite"),
        (nn.Identity(), torch.full((1, 3), torch.inf), "'x' that goes into the model is not fini"),
    ],
)
def test_activations_that_are_not_finite_are_placed(inner, data, message):
    model = export(Explodes(inner).eval(), torch.zeros(1, 3), Lowering())
    with pytest.raises(LoweringError, match=message):
        encode(model, {"fc": int8()}, [data], avoid_saturation=True)


class StaticSession:
    def __init__(self, size):
        self.size = size

    def get_inputs(self):
        return [type("Input", (), {"name": "x", "shape": [self.size, 1]})]


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [
        (1, 2, [([0], 1), ([1], 1)]),
        (2, 4, [([0, 1], 2), ([2, 3], 2)]),
        (3, 4, [([0, 1, 2], 3), ([1, 2, 3], 1)]),
        (4, 2, [([0, 1, 0, 1], 2)]),
    ],
)
def test_batches_fill_up_with_earlier_samples_and_the_new_ones_come_last(size, count, expected):
    data = [torch.arange(count).reshape(count, 1)]
    found = [(feeds["x"][:, 0].tolist(), new) for feeds, new in batches(data, StaticSession(size))]
    assert found == expected
