"""Targets that leave sizes open: what may be written, and what it stands for."""

import numpy as np
import pytest

from compress import LocalTarget, Recipe, ReplayTarget
from compress.errors import RecipeError, SettingsError
from compress.measure.open_sizes import MeasuredSize, Sized, open_axes, size_timing, sizes_of
from compress.measure.remote.ssh import SshTarget
from compress.measure.target import Failure

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("settings", "axes", "names", "batch"),
    [
        ({}, (), [], 1),
        ({"batch": 4}, (), [], 4),
        ({"batch": "any"}, ("batch",), ["1", "8"], 1),
        ({"batch": "any", "sizes": [4, 2]}, ("batch",), ["4", "2"], 4),
        ({"length": "any", "sizes": [16, 64]}, ("length",), ["1x16", "1x64"], 1),
        (
            {"batch": "any", "length": "any", "sizes": [[2, 16], [8, 64]]},
            ("batch", "length"),
            ["2x16", "8x64"],
            2,
        ),
    ],
)
@pytest.mark.parametrize("make", [LocalTarget, lambda **s: SshTarget(host="pi", **s)])
def test_sizes_that_are_measured(make, settings, axes, names, batch):
    target = make(**settings)
    assert isinstance(target, Sized)
    assert open_axes(target) == axes
    assert [size.name for size in sizes_of(target)] == names
    assert target.run_batch == batch
    for size in sizes_of(target):
        alone = target.at(size)
        assert (alone.batch, alone.open, alone.name) == (size.batch, (), target.name)


def test_a_target_with_nothing_open_is_written_as_before():
    assert list(LocalTarget().model_dump()) == [
        "runtime",
        "provider",
        "threads",
        "batch",
        "kind",
        "name",
        "timeout_s",
    ]
    assert LocalTarget(batch="any").model_dump()["batch"] == "any"
    assert "open" not in LocalTarget().lowering().facts()
    assert LocalTarget(batch="any", sizes=[8]).lowering().facts()["open"] == ("batch",)
    assert sizes_of(ReplayTarget()) == ()
    assert open_axes(ReplayTarget()) == ()


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("batch: many", r"targets\[0\]\.batch: should be 'any'; got 'many'"),
        ("batch: 0", r"targets\[0\]\.batch: should be greater than or equal to 1; got 0"),
        ("batch: 1.5", r"targets\[0\]\.batch: should be a valid integer; got 1\.5"),
        ("sizes: [1, 8]", r"sizes are for a target with batch: any or length: any"),
        ("length: any", r"length: any needs the sizes to measure at, such as sizes: \[16, 64\]"),
        (
            "batch: any, length: any",
            r"needs the sizes to measure at, such as sizes: \[\[1, 16\], \[8, 64\]\]",
        ),
        (
            "batch: any, length: any, sizes: [1, 8]",
            r"sizes are pairs where batch and length are open, such as \[\[1, 16\], \[8, 64\]\]",
        ),
        ("batch: any, sizes: [[1, 8]]", r"sizes are numbers where only batch is open, such as"),
        ("batch: any, sizes: [1, 1]", r"one of the sizes is there twice"),
        ("batch: any, sizes: [0]", r"sizes\[0\]: should be greater than or equal to 1; got 0"),
        ("length: 32", r"targets\[0\]\.length: should be 'any'; got 32"),
    ],
)
def test_settings_that_are_refused(block, said):
    text = f"task: digits\nmodel: {{arch: mlp}}\ntargets: [{{kind: local, {block}}}]\n"
    with pytest.raises(RecipeError, match=said):
        Recipe.loads(f"{text}stages: [{{kind: quantize}}]\n")


def test_settings_are_refused_from_python_too():
    with pytest.raises(SettingsError, match="sizes are for a target"):
        LocalTarget(sizes=[8])


def test_inputs_are_cut_to_the_length():
    ids = np.arange(12).reshape(2, 6)
    assert MeasuredSize(1, 4).cut({"ids": ids})["ids"].shape == (2, 4)
    assert MeasuredSize(8).cut({"": ids})[""] is not None


def test_what_was_not_timed_is_recorded_as_that():
    failed = [Failure("no memory.")]
    found = size_timing(MeasuredSize(8, 64), failed)
    assert (found.batch, found.length, found.latency, found.speedup) == (8, 64, None, None)
    assert "length" not in size_timing(MeasuredSize(8), failed).model_dump()
