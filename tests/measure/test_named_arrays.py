"""Arrays by the names of outputs: from a file, from batches, and what does not go together."""

import numpy as np
import pytest

from compress.errors import DataError
from compress.measure.named_arrays import by_names, joined, sample_count
from compress.measure.score import score

pytestmark = pytest.mark.fast

A, B = np.arange(6.0).reshape(3, 2), np.arange(3)


def test_arrays_of_a_file_are_named_in_order_and_an_only_one_is_itself():
    assert by_names([A], ["anything"]) is A
    assert list(by_names([A, B], ["boxes", "scores"])) == ["boxes", "scores"]


def test_batches_are_joined_by_name():
    found = joined([{"a": A, "b": B}, {"b": B, "a": A}])
    assert {name: array.shape for name, array in found.items()} == {"a": (6, 2), "b": (6,)}
    assert joined([A, A]).shape == (6, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: by_names([A, B], ["x"]),
            (
                r"^scoring: the file gives 2 outputs, and the model has 1 \(x\); both must have "
                r"the same ones\.$"
            ),
        ),
        (
            lambda: joined([{"a": A}, {"b": B}], "the labels"),
            (
                r"^the labels of some batches are for a, and of others for b; give all of them for "
                r"every sample, with None or NaN where one is not known\.$"
            ),
        ),
        (
            lambda: joined([{"a": A}, {"a": A[:, :1]}], "the labels"),
            r"^the labels for 'a' of some batches have the shape \(n, 2\), and of others \(n, 1\):",
        ),
        (
            lambda: sample_count({"a": A, "b": B[:1]}, "outputs"),
            r"^scoring: outputs must be of the same samples; got 3 of a, 1 of b\.$",
        ),
        (
            lambda: score({"a": A, "b": B}, B, "mse"),
            r"^scoring: the metric mse is on one output and its labels; got 2 and 1\.$",
        ),
        (
            lambda: score({"a": A}, {"a": A[:2]}, lambda *_: 0.0),
            r"^scoring: 3 outputs and 2 labels; there must be one label per sample\.$",
        ),
    ],
)
def test_what_does_not_go_together_is_a_sentence(call, message):
    with pytest.raises(DataError, match=message):
        call()
