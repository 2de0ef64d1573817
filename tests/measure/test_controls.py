"""How images follow controls: at each value, against the teacher's and against the input."""

from __future__ import annotations

import numpy as np
import pytest

from compress.measure.controls import followed

pytestmark = pytest.mark.fast


def samples(count=6, values=(0.0, 0.7)):
    random = np.random.RandomState(0)
    image = random.rand(count, 3, 8, 8).astype(np.float32)
    strength = np.resize(np.float32(values), (count, 1))
    wanted = image * (1 - 0.5 * strength[:, :, None, None])
    return {"image": image, "strength": strength}, wanted


def test_each_value_has_its_means_with_intervals():
    inputs, wanted = samples()
    made = wanted + np.float32(0.01)
    first, last = followed(inputs, made, wanted)["strength"]
    assert (first.value, last.value) == (0, 0.7)
    assert first.to_teacher.n == last.to_input.n == 3
    assert (first.teacher_to_input, first.to_teacher.value) == pytest.approx((60, 40), abs=0.1)
    assert last.to_input.value == pytest.approx(last.teacher_to_input, abs=1)
    assert last.to_input.value < 20
    low, high = last.to_input.ci95
    assert low <= last.to_input.value <= high


def test_nothing_is_said_where_no_value_is_shared_or_no_image_is_made():
    inputs, wanted = samples()
    assert followed({"image": inputs["image"]}, wanted, wanted) == {}
    assert followed(inputs, wanted, wanted[:, :1]) == {}
    assert followed(inputs, {"a": wanted}, wanted) == {}
    assert followed(inputs, wanted.reshape(6, -1), wanted.reshape(6, -1)) == {}
    inputs, wanted = samples(40, np.linspace(0, 1, 40))
    assert followed(inputs, wanted, wanted) == {}
    vector = {"image": inputs["image"], "code": np.zeros((40, 4), np.float32)}
    assert followed(vector, wanted, wanted) == {}
