import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from compress.artifact import Lowering
from compress.errors import ParityError
from compress.lower.export import export
from compress.lower.files import save
from compress.lower.parity import check_parity, compare, simulated_outputs
from compress.numerics import LayerFormat


def test_equal_outputs_have_no_ratio():
    outputs = np.eye(3, dtype=np.float32)
    parity = compare(outputs, outputs)
    assert (parity.agreement, parity.max_error, parity.sqnr_db, parity.samples) == (1, 0, None, 3)


def test_known_noise_gives_its_ratio_and_agreement():
    expected = np.array([[10.0, 0.0], [0.0, 10.0]])
    actual = np.array([[9.0, 0.0], [0.0, 9.0]])
    assert compare(expected, actual).sqnr_db == pytest.approx(20)
    assert compare(expected, actual[::-1]).agreement == 0


def test_classes_are_on_axis_one_and_single_outputs_have_none():
    pixels = np.zeros((1, 2, 2, 2))
    pixels[:, 1, 0] = 1
    other = pixels.copy()
    other[:, 1, 0, 0] = -1
    assert compare(pixels, other).agreement == 0.75
    assert compare(np.ones((4, 1)), -np.ones((4, 1))).agreement == 1


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    module = nn.Linear(4, 3).eval()
    path = tmp_path_factory.mktemp("parity") / "model.onnx"
    save(ir.to_proto(export(module, torch.zeros(1, 4), Lowering())), path)
    check = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    return path, check, module


def expected_outputs(linear):
    _, check, module = linear
    return simulated_outputs(module, check, {}, {}, avoid_saturation=False)


@pytest.mark.parametrize(
    ("error", "is_float", "fails"),
    [(1e-5, True, False), (5e-3, True, True), (5e-3, False, False)],
)
def test_a_float_artifact_is_held_to_a_thousandth(error, is_float, fails, linear):
    path, check, _ = linear
    expected = expected_outputs(linear)
    shifted = expected + error * np.abs(expected).max()
    if fails:
        with pytest.raises(ParityError, match=r"the float32 artifact .* largest error .* samples"):
            check_parity(path, check, shifted, is_float=is_float)
    else:
        assert check_parity(path, check, shifted, is_float=is_float).samples == 32


def test_a_quantised_artifact_is_wrong_when_it_is_noisy_and_disagrees(linear):
    path, check, _ = linear
    expected = expected_outputs(linear)
    with pytest.raises(ParityError, match=r"quantised artifact .* the same class for \d+%"):
        check_parity(path, check, -expected, is_float=False)
    # Noisy and of one mind: a coarse format, not a mistake.
    assert check_parity(path, check, 3 * expected, is_float=False).sqnr_db < 10


def test_outputs_that_are_not_finite_are_refused(linear):
    path, check, _ = linear
    with pytest.raises(ParityError, match="gives outputs that are not finite where its module"):
        check_parity(path, check * torch.nan, expected_outputs(linear), is_float=True)


def test_the_simulation_leaves_the_module_as_it_was(linear):
    _, check, module = linear
    before = module.weight.clone()
    format = LayerFormat(weights="int2", activations="int8")
    rough = simulated_outputs(
        module, check, {"": format}, {"": (-1.0, 1.0)}, avoid_saturation=False
    )
    assert torch.equal(module.weight, before)
    assert not module._forward_hooks
    assert np.abs(rough - expected_outputs(linear)).max() > 0.01
