import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compress.quantization.formats import ACTIVATIONS
from compress.quantization.numerics import Calibration
from compress.quantization.ranges import RangeObserver

METHODS = [Calibration(method=m) for m in ("minmax", "percentile", "mse")]
RNG = np.random.default_rng(0)


def observed(*parts, calibration=METHODS[0]):
    observer = RangeObserver()
    for part in parts:
        observer.update(np.asarray(part, dtype=np.float32))
    return observer.range(calibration, levels=255)


@pytest.mark.parametrize("calibration", METHODS, ids=lambda c: c.method)
@given(
    values=arrays.arrays(np.float32, st.integers(2, 200), elements=st.floats(-1e4, 1e4, width=32)),
    cut=st.integers(1, 199),
)
@example(values=np.array([1.0, -1.1754944e-38], dtype=np.float32), cut=1)
@settings(max_examples=60, deadline=None)
def test_the_range_does_not_depend_on_batches_or_their_order(calibration, values, cut):
    cut = min(cut, len(values) - 1)
    whole = observed(values, calibration=calibration)
    assert observed(values[cut:], values[:cut], calibration=calibration) == whole


@pytest.mark.parametrize("calibration", METHODS, ids=lambda c: c.method)
@given(
    values=arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e3, 1e3, width=32))
)
@settings(max_examples=60, deadline=None)
def test_the_range_contains_zero_and_lies_within_what_was_seen(calibration, values):
    low, high = observed(values, calibration=calibration)
    assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)


def test_minmax_is_exact():
    assert observed([0.3, -1.25], [7.5]) == (-1.25, 7.5)


def test_percentile_leaves_out_the_share_it_says():
    values = RNG.normal(size=200_000)
    low, high = observed(values, calibration=Calibration(method="percentile", percentile=99))
    assert low == pytest.approx(np.quantile(values, 0.01), abs=0.01)
    assert high == pytest.approx(np.quantile(values, 0.99), abs=0.01)


def test_mse_gives_a_smaller_rounding_error_than_minmax_on_heavy_tails():
    values = RNG.standard_t(2, size=100_000).astype(np.float32)

    def error(calibration):
        low, high = observed(values, calibration=calibration)
        scale, zero = ACTIVATIONS["int8"].grid(low, high)
        grid = np.clip(np.round(values / scale) + zero, 0, 255)
        return float(np.mean((values - (grid - zero) * scale) ** 2))

    minmax, _, mse = (error(c) for c in METHODS)
    assert mse < 0.95 * minmax


def test_memory_does_not_grow_with_the_number_of_samples():
    observer = RangeObserver()
    batch = RNG.normal(size=100_000).astype(np.float32)
    observer.update(batch)
    tracemalloc.start()
    for _ in range(20):
        observer.update(batch)
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert current < 200_000


def test_nothing_observed_is_an_error():
    with pytest.raises(ValueError, match="no calibration data was observed"):
        RangeObserver().range(METHODS[0], levels=255)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="not finite"):
        observed([1.0, bad])


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero"),
    [
        *((0.0, 255.0, 1.0, 0), (-1.0, 1.0, 2 / 255, 128)),
        *((0.5, 1.0, 1 / 255, 0), (0.0, 0.0, 1 / 255, 0)),
    ],
)
def test_the_activation_grid_has_zero_on_it(low, high, scale, zero):
    assert ACTIVATIONS["int8"].grid(low, high) == (pytest.approx(scale), zero)
