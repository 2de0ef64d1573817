"""Any ONNX files side by side."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compress.measure.compare import (
    ComparedModel,
    compare,
    model_bytes,
    session_table,
    short_names,
    table,
)
from compress.measure.local import LocalTarget
from compress.measure.replay import ReplayTarget
from compress.record import Latency, Memory, Speedup


def test_the_same_file_twice_and_a_net_of_twice_the_width(tmp_path):
    small, double = tmp_path / "small.onnx", tmp_path / "double.onnx"
    small.touch()
    double.touch()
    target = ReplayTarget(
        latency_s={"small.onnx": 1e-3, "double.onnx": 2.2e-3},
        model_peak_bytes=lambda _: 1,
        noise=0.005,
    )
    rows = compare([small, small, double], target)
    verdicts = [row.speedup.verdict for row in rows]
    assert verdicts == ["baseline", "no difference shown", "slower"]
    assert [row.name for row in rows] == ["small.onnx", "small.onnx", "double.onnx"]


def test_files_that_are_no_models_are_rows_that_say_why(tmp_path, hasty, four, truncated):
    text, missing = tmp_path / "text.onnx", tmp_path / "missing.onnx"
    text.write_text("not a model")
    rows = compare([truncated, text, missing, four], LocalTarget(), "quick")
    assert [row.error is None for row in rows] == [False, False, False, True]
    assert rows[0].error.startswith("the file is cut off: at least ")
    assert rows[1].error == "it is not an ONNX file."
    assert rows[2].error == "there is no such file."
    assert [row.bytes for row in rows[:3]] == [60, 11, None]
    notes = " ".join(rows[3].warnings)
    assert "the baseline" in notes
    assert "truncated.onnx could not be measured" in notes
    assert "it runs 4 samples per inference" in notes
    assert rows[3].latency.p50_s > 0
    printed = table(rows)
    assert printed.count("failed") >= 3
    assert "missing.onnx: there is no such file" in printed


def test_given_inputs_reach_the_target():
    class Spy(ReplayTarget):
        def measure(self, models, config, raw=None):
            assert config.inputs["x"].shape == (2, 4)
            assert (config.mode, config.seed) == ("strict", 5)
            return super().measure(models, config, raw)

    target = Spy(latency_s={"m": 1.0}, model_peak_bytes={"m": 1})
    (row,) = compare([Path("m")], target, "strict", inputs={"x": np.zeros((2, 4))}, seed=5)
    assert row.speedup.verdict == "baseline"


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.onnx", "b/y.onnx"], ["x.onnx", "y.onnx"]),
        (["a/m.onnx", "b/m.onnx"], ["a/m.onnx", "b/m.onnx"]),
        (["r/a/m.onnx", "s/a/m.onnx", "s/a/m.onnx"], ["r/a/m.onnx", "s/a/m.onnx", "s/a/m.onnx"]),
        (["x.onnx", "x.onnx"], ["x.onnx", "x.onnx"]),
    ],
)
def test_names_are_as_short_as_tells_them_apart(paths, names):
    assert short_names([Path(path) for path in paths]) == names


def test_bytes_count_external_data_by_whatever_name(tmp_path, one):
    model = onnx.load(one)
    path = tmp_path / "outer.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    data = tmp_path / "weights.bin"
    assert data.stat().st_size > 0
    assert model_bytes(path) == path.stat().st_size + data.stat().st_size


def test_bytes_count_external_data_of_branches(tmp_path):
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["w"], ["y"])],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4])],
        [onnx.numpy_helper.from_array(np.ones(4, np.float32), "w")],
    )
    onnx.external_data_helper.set_external_data(branch.initializer[0], "inner.bin")
    branch.initializer[0].ClearField("raw_data")
    choice = onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    graph = onnx.helper.make_graph([choice], "outer", [], [], [])
    path = tmp_path / "branches.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    (tmp_path / "inner.bin").write_bytes(b"0123456789")
    assert model_bytes(path) == path.stat().st_size + 10


def test_the_table_lines_up_and_keeps_notes_below():
    good = ComparedModel(
        "net.onnx",
        2048,
        Latency(
            p50_s=1.5e-3,
            p90_s=None,
            p99_s=None,
            ci95_p50_s=(1.4e-3, 1.6e-3),
            processes=5,
            samples=9,
        ),
        Speedup(value=1.25, ci95=(1.2, 1.3), verdict="faster"),
        Memory(peak_rss_bytes=3 << 20, model_peak_bytes=3 << 19, runtime_bytes=3 << 19),
        ("a note",),
        shapes={"x": (1, 512), "h": (2, 1, 8), "c": (2, 1, 8), "sr": ()},
    )
    bad = ComparedModel("broken.onnx", None, error="it is no model.")
    head, rule, first, second, blank, *notes = table([good, bad]).splitlines()
    assert head.split()[:2] == ["model", "KiB"]
    assert set(rule) == {"-", " "}
    cells = "net.onnx 2.0 1.500 1.400 to 1.600 - 1.250 1.200 to 1.300 faster 1.5"
    assert first.split() == [*cells.split(), "1x512,", "2", "times", "2x1x8,", "scalar"]
    assert second.split() == ["broken.onnx", *["-"] * 6, "failed", "-", "-"]
    ends = [head.index("KiB") + 3, first.index("2.0") + 3, second.index("-") + 1]
    assert len(set(ends)) == 1
    assert blank == ""
    assert notes == ["broken.onnx: it is no model.", "net.onnx: a note"]


def test_what_is_said_of_every_model_is_printed_once():
    latency = Latency(p50_s=1.0, p90_s=1.0, p99_s=1.0, ci95_p50_s=(1, 1), processes=3, samples=3)
    speedup = Speedup(value=1.0, ci95=(1, 1), verdict="baseline")
    rows = [
        ComparedModel("a", 1, latency, speedup, None, ("busy", "slow")),
        ComparedModel("b", 1, latency, speedup, None, ("busy",)),
        ComparedModel("c", None, error="no model."),
    ]
    assert table(rows).split("\n\n")[1].splitlines() == ["c: no model.", "a: slow", "all: busy"]


def test_what_is_said_of_a_whole_session_is_printed_once_under_its_name():
    latency = Latency(p50_s=1.0, p90_s=1.0, p99_s=1.0, ci95_p50_s=(1, 1), processes=3, samples=3)
    speedup = Speedup(value=1.0, ci95=(1, 1), verdict="baseline")
    sessions = {
        name: [
            ComparedModel(f"{name} a", 1, latency, speedup, None, ("busy", "slow")),
            ComparedModel(f"{name} b", 1, latency, speedup, None, ("busy",)),
        ]
        for name in ("one", "two")
    }
    rows, notes = session_table(sessions).split("\n\n")
    assert [line.split("  ")[0] for line in rows.splitlines()[2:]] == [
        "one a", "one b", "two a", "two b",
    ]  # fmt: skip
    assert notes.splitlines() == ["one a: slow", "one: busy", "two a: slow", "two: busy"]
