"""What a model returns, as one tensor or as tensors by name."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from compress.errors import ContractViolation, DataError
from compress.modules.outputs import as_outputs, by_name, each_output, selected

pytestmark = pytest.mark.fast

A, B = torch.zeros(2, 3), torch.ones(2, 4)
Pair = namedtuple("Pair", ["logits", "boxes"])


@dataclass
class Record:
    """Two outputs, one of which may be missing."""

    logits: Tensor
    hidden: Any = None


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ((A, B), ["0", "1"]),
        ([A, B], ["0", "1"]),
        ({"scores": A, "boxes": B}, ["scores", "boxes"]),
        (OrderedDict(logits=A), ["logits"]),
        (Pair(A, B), ["logits", "boxes"]),
        (Record(A), ["logits"]),
        (Record(A, (A, B)), ["logits", "hidden.0", "hidden.1"]),
        ({"a": {"b": A, "c": None}, "d": [B]}, ["a.b", "d.0"]),
        ({3: A}, ["3"]),
        ((A, None), ["0"]),
    ],
)
def test_outputs_are_called_by_key_field_or_place(given: Any, names: list[str]) -> None:
    """In the order in which the model returns them."""
    found = as_outputs(given)
    if names == ["0"]:
        assert found is A
    else:
        assert isinstance(found, dict)
        assert list(found) == names


def test_one_tensor_stays_one() -> None:
    """Also where it is alone in a tuple."""
    assert as_outputs(A) is A
    assert as_outputs((A,)) is A
    assert by_name(A) == {"output": A}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((A, "x"), "the model returns a str (1); return a tensor, or a tuple or dictionary"),
        (3.5, "the model returns a float; return a tensor"),
        (None, "the model returns a NoneType without a tensor"),
        ({}, "the model returns a dict without a tensor"),
        ({"a.0": A, "a": [B]}, "two outputs of the name 'a.0'"),
    ],
)
def test_what_holds_no_tensors_is_refused(given: Any, words: str) -> None:
    """In one sentence."""
    with pytest.raises(ContractViolation) as error:
        as_outputs(given)
    assert words in str(error.value)


def test_one_of_several_outputs() -> None:
    """By its name, or the only one."""
    both = {"scores": A, "boxes": B}
    assert selected(both, "boxes") is B
    assert selected(A, None) is A
    assert selected({"boxes": B}, None) is B
    with pytest.raises(DataError, match=r"the student gives 2 outputs \(scores, boxes\); say"):
        selected(both, None, "the student")
    with pytest.raises(DataError, match="has no output 'box'; its outputs are scores, boxes"):
        selected(both, "box")
    assert each_output(both, lambda one: one + 1).keys() == both.keys()
    assert torch.equal(selected(each_output(A, lambda one: one + 1), None), A + 1)
