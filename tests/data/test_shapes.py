"""Every shape of data is planned, trained on for an epoch, and quantized."""

import pytest

from .shapes import SHAPES


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_planned_and_run(name, plan, run):
    if "Hugging Face" in name:
        pytest.importorskip("datasets")
    make, net = SHAPES[name]
    assert plan(make(), net).scoring.name == "accuracy"
    record = run(make(), net)
    assert len(record.rows) == 3
