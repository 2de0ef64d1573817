"""The test double: declared numbers, real outputs."""

from pathlib import Path

import numpy as np
import pytest

from compress.artifact import Lowering
from compress.errors import MeasurementError
from compress.measure.replay import ReplayTarget, latency_by_bytes_s, memory_by_bytes
from compress.measure.target import BenchmarkConfig, Target


def measured(target, *models, seed=0):
    return target.measure([Path(model) for model in models], BenchmarkConfig({}, "quick", seed))


def test_a_replay_is_a_target():
    target = ReplayTarget(encoding=Lowering(batch=2, avoid_saturation=True))
    assert isinstance(target, Target)
    assert target.lowering() == Lowering(batch=2, avoid_saturation=True)
    assert target.environment()["device_id"] == "replay"


def test_numbers_are_found_by_the_longest_end_of_the_path():
    target = ReplayTarget(
        latency_s={"model.onnx": 4e-3, "01-prune/model.onnx": 1e-3}, model_peak_bytes=lambda _: 7
    )
    base, pruned = measured(target, "run/00-input/model.onnx", "run/01-prune/model.onnx")
    assert base.latency.p50_s == pytest.approx(4e-3)
    assert pruned.latency.p50_s == pytest.approx(1e-3)
    assert pruned.speedup.value == pytest.approx(4)
    assert pruned.memory.model_peak_bytes == 7


def test_by_default_numbers_follow_the_size_of_the_files(one):
    (timing,) = measured(ReplayTarget(), one)
    size = one.stat().st_size
    assert latency_by_bytes_s(one) == pytest.approx(1e-4 + size * 1e-9)
    assert timing.latency.p50_s == pytest.approx(latency_by_bytes_s(one))
    assert timing.memory.model_peak_bytes == memory_by_bytes(one) == 2 * size


def test_noise_repeats_with_the_seed():
    target = ReplayTarget(latency_s={"m": 1e-3}, model_peak_bytes={"m": 1}, noise=0.05)
    first, again, other = (measured(target, "m", "m", seed=s)[1].latency for s in (1, 1, 2))
    assert first == again != other


def test_a_model_without_a_declared_number_is_a_failure():
    target = ReplayTarget(name="pi", latency_s={"a": 1e-3}, model_peak_bytes=lambda _: 1)
    assert (
        "target 'pi' declares no latency for it, only for ['a']" in measured(target, "b")[0].error
    )


def test_outputs_come_from_onnxruntime_or_from_a_given_function(any_batch):
    x = np.eye(4, dtype=np.float32)
    (real,) = ReplayTarget().predict(any_batch, {"": x})
    np.testing.assert_allclose(real, np.arange(12).reshape(4, 3) / 4)
    (given,) = ReplayTarget(run=lambda model, inputs: [inputs[""] + 1]).predict(any_batch, {"": x})
    np.testing.assert_array_equal(given, x + 1)


def test_declared_errors_hold_for_outputs_too():
    target = ReplayTarget(errors={"m": "it is cursed."})
    with pytest.raises(MeasurementError, match=r"m: it is cursed\."):
        target.predict(Path("m"), {})
