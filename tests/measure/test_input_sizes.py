"""Sizes that files leave open: the same for files that are compared, or no ratio."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compress.errors import DataError, MeasurementError, RecipeError
from compress.measure.arrays import read_arrays
from compress.measure.compare import compare, table
from compress.measure.input_sizes import Fit, Given, alike, fits, unlike, words
from compress.measure.local import LocalTarget
from compress.measure.modes import PLANS
from compress.measure.ondevice.session import checked_session, run_folder
from compress.measure.profile.profiler import profile
from compress.measure.profile.table import text
from compress.measure.remote.ssh import SshTarget
from compress.measure.replay import ReplayTarget
from compress.measure.session import read_session, write_session
from compress.measure.target import BenchmarkConfig, Failure

A, B, C = Path("a.onnx"), Path("b.onnx"), Path("c.onnx")
FAILED = (
    "Fail: [ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul "
    "node. Name:'head' Status Message: dimension mismatch"
)


class Fitting:
    """A target whose files run with the sizes that a rule allows; counts what it is asked."""

    def __init__(self, files):
        self.files, self.asked = files, []

    def fit(self, model, settings):
        shape, rule = self.files[model]
        self.asked.append((model.name, dict(settings["shapes"])))
        if shape is None:
            raise MeasurementError(f"{model}: the file is empty.")
        told = settings["shapes"].get("x", [16 if size is None else size for size in shape])
        ran = rule(*told)
        axes = ["n" if size is None and not axis else "" for axis, size in enumerate(shape)]
        port = {"name": "x", "type": "tensor(float)", "shape": shape, "axes": axes}
        return {
            "inputs": [port],
            "shapes": {"x": list(told)},
            "guessed": {} if "x" in settings["shapes"] else {"x": [1]},
            "tried": [{"x": list(told)}] if ran else [{"x": list(told)}] * 7,
            "failed": None if ran else FAILED,
        }


def anything(*_):
    return True


def only(width):
    return lambda _, given: given == width


def sizes_of(files, given=None):
    found = fits(list(files), Fitting(files), given or Given())
    return {model.stem: fit.shapes["x"] for model, fit in found.items()}, found


@pytest.mark.parametrize(
    ("files", "sizes"),
    [
        # Free sizes are those of a file that fixes them, wherever it is.
        ({A: ([1, 96], anything), B: ([None, None], anything)}, {"a": (1, 96), "b": (1, 96)}),
        ({A: ([None, None], anything), B: ([4, 96], anything)}, {"a": (4, 96), "b": (4, 96)}),
        # Or those with which another one runs.
        (
            {A: ([None, None], anything), B: ([None, None], anything)},
            {"a": (16, 16), "b": (16, 16)},
        ),
        # Two files that fix other sizes keep them; the third follows the first.
        (
            {A: ([1, 96], anything), B: ([1, 64], anything), C: ([None, None], anything)},
            {"a": (1, 96), "b": (1, 64), "c": (1, 96)},
        ),
        # Most files count.
        (
            {A: ([1, 96], anything), B: ([1, 64], anything), C: ([None, None], only(64))},
            {"a": (1, 96), "b": (1, 64), "c": (1, 64)},
        ),
        # What does not run with the sizes of another keeps its own.
        (
            {A: ([1, 96], anything), B: ([None, None], only(16))},
            {"a": (1, 96), "b": (16, 16)},
        ),
        # A file that would not run by itself runs with what another one fixes.
        ({A: ([None, None], only(96)), B: ([1, 96], anything)}, {"a": (1, 96), "b": (1, 96)}),
        # Other numbers of axes have nothing in common.
        ({A: ([96], anything), B: ([None, None], anything)}, {"a": (96,), "b": (16, 16)}),
    ],
)
def test_open_sizes_are_those_of_another_file_where_it_runs_with_them(files, sizes):
    found, _ = sizes_of(files)
    assert found == sizes


def test_files_that_fix_their_sizes_are_asked_once():
    files = {A: ([1, 96], anything), B: ([1, 64], anything)}
    target = Fitting(files)
    fits([A, B, A], target, Given())
    assert target.asked == [("a.onnx", {}), ("b.onnx", {})]


def test_what_is_told_is_not_taken_from_another_file():
    files = {A: ([1, 96], anything), B: ([None, None], anything)}
    assert sizes_of(files, Given({"n": (2,)}))[0] == {"a": (1, 96), "b": (16, 16)}
    alone = {B: files[B]}
    assert sizes_of(alone, Given({"x": (2, 7)}))[0] == {"b": (2, 7)}


def test_a_file_that_cannot_be_opened_is_left_out():
    files = {A: (None, anything), B: ([1, 64], anything)}
    assert sizes_of(files)[0] == {"b": (1, 64)}
    assert fits([A], Fitting({A: (None, anything)}), Given({"y": (1,)})) == {}


def test_a_target_that_cannot_tell_is_not_asked():
    assert fits([A], ReplayTarget(), Given({"y": (1,)})) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            Given({"y": (1, 5)}),
            "--shape y=1x5: no file has an input or an open axis of that name; there are inputs x and axes n.",
        ),
        (
            Given({"n": (1, 5)}),
            "--shape n=1x5: no file has an input of that name; there are inputs x and axes n.",
        ),
        (
            Given(values={"y": np.zeros(1)}),
            "--inputs: no file has an input 'y'; there are x.",
        ),
    ],
)
def test_names_that_no_file_has_are_refused(given, message):
    with pytest.raises(RecipeError) as refused:
        sizes_of({A: ([None, 4], anything), B: ([1, 64], anything)}, given)
    assert str(refused.value) == message


def test_a_file_without_names_has_none_to_list():
    with pytest.raises(RecipeError, match=r"there are inputs x\.$"):
        sizes_of({A: ([96], anything)}, Given({"y": (1,)}))


def test_what_does_not_run_says_what_was_tried_and_what_would_do():
    _, found = sizes_of({A: ([None, None], only(5)), B: ([1, 64], only(5))})
    assert found[A].error == (
        "its operator MatMul ('head') fails on these inputs: dimension mismatch; it was given x "
        "16x16, and then 6 other guesses: give the sizes of x [n, ?] with --shape x=SIZES, or give "
        "it inputs with --inputs FILE.npz."
    )
    _, found = sizes_of({B: ([1, 64], only(5))}, Given({"x": (1, 64)}))
    assert found[B].error.endswith(
        "it was given x 1x64, and then 6 other guesses: give it inputs with --inputs FILE.npz."
    )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {}, True),
        ({"x": (1, 512)}, {"x": (1, 512)}, True),
        ({"x": (1, 512)}, {"x": (1, 576)}, False),
        ({"x": (1, 512)}, {"x": (4, 512)}, False),
        ({"x": (1, 512)}, {"input": (1, 512)}, True),
        ({"x": (1, 512)}, {"input": (1, 16)}, False),
        # Layout, and axes of one.
        ({"x": (1, 3, 96, 64)}, {"x": (1, 96, 64, 3)}, True),
        ({"x": (512,)}, {"x": (1, 512, 1)}, True),
        # An input more, of a size that is there already, or that is new.
        ({"ids": (1, 16), "mask": (1, 16)}, {"ids": (1, 16)}, True),
        ({"ids": (1, 16), "types": (1, 16)}, {"words": (1, 16)}, True),
        ({"x": (1, 16), "image": (1, 3, 8, 8)}, {"x": (1, 16)}, True),
        ({"x": (1, 16), "h": (2, 8)}, {"x": (1, 16), "c": (4, 8)}, False),
        ({"x": (1, 16), "y": (1, 32)}, {"x": (1, 32), "y": (1, 16)}, False),
        # Scalars have no size; nothing is unlike something.
        ({"x": (1, 16), "sr": ()}, {"x": (1, 16)}, True),
        ({}, {"x": (1, 16)}, False),
        ({"sr": ()}, {"x": (1, 16)}, False),
    ],
)
def test_inputs_are_alike_by_their_sizes(one, other, expected):
    assert alike(one, other) is expected
    assert alike(other, one) is expected


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({}, "no inputs"),
        ({"x": (1, 512), "sr": ()}, "x 1x512, sr scalar"),
        (dict.fromkeys("abcde", (2,)), "a 2, b 2, c 2, …"),
        ({"two\nlines": (2,), "x" * 99: (3,)}, f"two lines 2, {'x' * 59}…"),
    ],
)
def test_shapes_in_words(shapes, said):
    assert words(shapes) == said


def test_only_what_differs_is_said():
    own, other = dict.fromkeys("abcde", (1, 16)), dict.fromkeys("abcde", (1, 16))
    assert unlike(own, "other.onnx", {**other, "e": (1, 8)}, some_open=False) == (
        "it is not compared: it ran with e 1x16, and other.onnx with e 1x8; the files fix these sizes"
    )


def test_one_other_guess_is_one():
    files = {A: ([None, None], only(5))}
    target = Fitting(files)
    answer = {**target.fit(A, {"shapes": {}}), "tried": [{}, {}]}
    assert ", and then 1 other guess: give" in Fit.of(A, answer).error


def test_a_scalar_text_was_not_one():
    port = {"name": "x", "type": "tensor(string)", "shape": [], "axes": []}
    assert Fit(A, [port], {"x": ()}, {}).notes(Given()) == []
    assert len(Fit(A, [{**port, "type": "tensor(float)"}], {"x": ()}, {}).notes(Given())) == 1


# -- files ------------------------------------------------------------------------------------


@pytest.fixture
def at_once(monkeypatch):
    """Sessions of two rounds: what is looked at here is not how long it takes."""
    quick = replace(PLANS["quick"], min_rounds=2, max_rounds=2)
    monkeypatch.setattr("compress.measure.rounds.PLANS", {"quick": quick})
    monkeypatch.setattr("compress.measure.session.PLANS", {"quick": quick})


def test_states_with_layers_first_are_measured(at_once, recurrent):
    static, named = compare([recurrent(1), recurrent("batch")], LocalTarget(), "quick")
    assert static.shapes == named.shapes == {"frame": (1, 16), "state": (2, 1, 8)}
    assert named.speedup is not None
    assert static.latency.p50_s > 0


def test_files_of_other_sizes_have_no_ratio_and_say_why(at_once, summing):
    rows = compare([summing(x=[1, 64]), summing(x=[1, 4096])], LocalTarget(), "quick")
    small, large = rows
    assert small.speedup.verdict == "baseline"
    assert large.speedup is None
    assert large.warnings[0] == (
        f"it is not compared: it ran with x 1x4096, and {small.name} with x 1x64; the files fix "
        "these sizes"
    )
    assert not [note for note in large.warnings if "its ratio" in note]
    _, _, _, line, *notes = table(rows).splitlines()
    assert "not compared" in line
    assert line.endswith("1x4096")
    assert any(note.startswith(f"{large.name}: it is not compared") for note in notes)


def test_an_open_size_follows_the_other_file_and_says_so(at_once, summing, product):
    fixed = summing(x=[1, 49])
    open_, image = product(["n", "k"], 49), summing(x=["n", 3, "h", "w"], s=[])
    rows = compare([fixed, open_, image], LocalTarget(), "quick")
    assert [row.shapes["x"] for row in rows] == [(1, 49), (1, 49), (1, 3, 224, 224)]
    assert rows[1].speedup is not None
    assert f"it leaves sizes open, and was given those of {fixed.name}" in rows[1].warnings
    assert rows[2].speedup is None
    assert rows[2].warnings[:3] == (
        f"it is not compared: it ran with x 1x3x224x224, and {fixed.name} with x 1x49; --shape sets the open ones",
        "it leaves sizes open, and these are guesses: x 1x3x224x224; --shape x=SIZES gives others",
        "its scalar s was 1, which may decide what it computes; --inputs FILE.npz gives another",
    )


def test_given_sizes_and_values_reach_every_process(at_once, summing):
    model = summing(x=["n", "t"], s=[])
    given = Given({"x": (3, 7)}, {"s": np.array(2.5)})
    (row,) = compare([model], LocalTarget(), "quick", given=given)
    assert row.shapes == {"x": (3, 7), "s": ()}
    assert any(text.startswith("it runs 3 samples per inference") for text in row.warnings)
    (row,) = compare([model], LocalTarget(), "quick", given=Given(values={"x": np.zeros((2, 2))}))
    assert row.shapes["x"] == (2, 2)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (Given({"x": (1, 5)}), "the input 'x' takes [?, 4]; got 1x5."),
        (
            Given(values={"x": np.zeros((1, 4), np.complex64)}),
            "the input 'x' takes float32; got complex64.",
        ),
    ],
)
def test_what_is_given_and_does_not_fit_is_the_row(at_once, summing, given, error):
    (row,) = compare([summing(x=[None, 4])], LocalTarget(), "quick", given=given)
    assert row.error == error
    (failure,) = profile([summing(x=[None, 4])], LocalTarget(), "quick", given=given)
    assert failure == Failure(error)


def test_a_size_that_cannot_be_guessed_says_what_would_do(at_once, product):
    model = product(["n", "k"], 49)
    (row,) = compare([model], LocalTarget(), "quick")
    assert row.error.startswith("its operator MatMul ('head') fails on these inputs: ")
    assert "it was given x 1x16, and then " in row.error
    assert row.error.endswith(
        "other guesses: give the sizes of x [n, k] with --shape x=SIZES, or give it inputs with "
        "--inputs FILE.npz."
    )
    assert row.error.count(". ") == 0
    (row,) = compare([model], LocalTarget(), "quick", given=Given({"k": (49,)}))
    assert row.shapes == {"x": (1, 49)}


@pytest.mark.exhaustive
def test_profiles_of_other_sizes_are_not_compared(summing, monkeypatch):
    monkeypatch.setattr("compress.measure.profile.profiler._SETTINGS", {"as deployed": {}})
    models = [summing(x=[1, 64]), summing(x=["n", 4096])]
    first, second = profile(models, LocalTarget(), "quick", given=Given({"n": (2,)}))
    assert second.shapes == {"x": (2, 4096)}
    assert (second.verdict, second.speedup, second.ci95_speedup) == ("not compared", None, None)
    assert second.notes[0].startswith("it is not compared: it ran with x 2x4096, and ")
    assert second.summary.startswith(f"{second.name} takes ")
    assert first.verdict == "reference"
    shown = text([("second", second)])
    assert "inputs: x 2x4096" in shown
    assert "note: it is not compared" in shown
    assert "no inputs" in text([("second", replace(second, shapes={}))])


def test_a_session_for_a_device_carries_sizes_and_values(at_once, summing, tmp_path):
    model = summing(x=["n", "t"], s=[])
    config = BenchmarkConfig(
        {}, "quick", shapes={model: {"x": (2, 7)}}, values={"s": np.array(3.0)}
    )
    write_session(tmp_path, [model], config, threads=1, batch=1)
    session = json.loads((tmp_path / "session.json").read_text())
    assert session["models"][0]["shapes"] == {"x": [2, 7]}
    assert np.load(tmp_path / session["values"]["s"]) == 3
    run_folder(tmp_path)
    (timing,) = read_session(tmp_path / "session.jsonl").timings
    assert timing.shapes == {"x": (2, 7), "s": ()}
    assert timing.raw["batch"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": {"x": "../x.npy"}}, "leads out of the folder"),
        ({"shapes": {"x": [1, -2]}}, "each model's shapes must be lists of whole numbers"),
        ({"shapes": {"x": ["1"]}}, "each model's shapes must be lists of whole numbers"),
        ({"shapes": [1]}, "no attribute 'values'"),
    ],
)
def test_a_session_with_nonsense_for_sizes_is_refused(change, message):
    model = {"path": "m.onnx", "sha256": "", "name": "m"}
    if "shapes" in change:
        model |= change
        change = {}
    session = {"models": [model], "inputs": {}, "plan": None, "threads": 1, "batch": 1, **change}
    with pytest.raises((ValueError, AttributeError), match=message):
        checked_session(session)


def test_sizes_for_another_device_are_tried_on_this_one(product):
    answer = SshTarget(host="nowhere", batch=2).fit(product(["n", "k"], 48), {})
    assert answer["shapes"] == {"x": [2, 48]}


# -- a file of arrays -------------------------------------------------------------------------


def test_arrays_are_read_by_their_names(tmp_path):
    np.savez(tmp_path / "i.npz", x=np.zeros((1, 4)), sr=16000, words=np.array(["a"]))
    found = read_arrays(tmp_path / "i.npz")
    assert {name: array.shape for name, array in found.items()} == {
        "x": (1, 4),
        "sr": (),
        "words": (1,),
    }


DAMAGED = "no .npz file that can be read (it is another kind, or damaged)."


def gone(_):
    pass


def folder(path):
    path.mkdir()


def one_array(path):
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))


def objects(path):
    np.savez(path, x=np.array([{}], dtype=object))


def pickle(path):
    path.write_bytes(b"\x80\x04K\x01.")


def words_of_text(path):
    path.write_text("x: 1")


def nothing(path):
    path.touch()


def no_arrays(path):
    np.savez(path)


def cut_off(path):
    np.savez(path, x=np.arange(1000))
    path.write_bytes(path.read_bytes()[:2000])


def compressed_and_damaged(path):
    np.savez_compressed(path, x=np.random.default_rng(0).standard_normal(1000))
    content = bytearray(path.read_bytes())
    content[500:600] = bytes(100)
    path.write_bytes(content)


def damaged(path):
    np.savez(path, x=np.arange(1000))
    content = bytearray(path.read_bytes())
    content[500:600] = bytes(100)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (gone, "there is no such file."),
        (folder, "it is a folder, and a file is asked for."),
        (one_array, "one array without a name; save it with np.savez(FILE, NAME=it)."),
        (objects, "it holds Python objects, which are not read; save texts as an array of dtype "),
        (pickle, DAMAGED),
        (words_of_text, DAMAGED),
        (nothing, DAMAGED),
        (no_arrays, "there is no array in it; save them with np.savez(FILE, NAME=it)."),
        (cut_off, "a damaged zip archive (File is not a zip file)."),
        (damaged, DAMAGED),
        (compressed_and_damaged, DAMAGED),
    ],
)
def test_a_file_that_holds_no_arrays_is_refused(make, said, tmp_path):
    path = tmp_path / "inputs.npz"
    make(path)
    with pytest.raises(DataError) as refused:
        read_arrays(path)
    assert str(refused.value).startswith(f"{path}: {said}")
    assert "\n" not in str(refused.value)


def test_arrays_that_do_not_fit_into_memory_are_refused(tmp_path, monkeypatch):
    def load(*_, **__):
        raise MemoryError

    monkeypatch.setattr(np, "frombuffer", load)
    np.savez(tmp_path / "i.npz", x=np.arange(3))
    with pytest.raises(DataError, match="its arrays do not fit into this machine's memory"):
        read_arrays(tmp_path / "i.npz")
