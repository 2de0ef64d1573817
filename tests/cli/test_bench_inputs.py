"""`bench` on files whose inputs are not known in full, and what the command line tells of them."""

import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compress.cli import main


def say(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def listener(path, length="samples"):
    """Sound (batch, length) at a rate: another product for each of two rates."""
    ports = [
        helper.make_tensor_value_info("sound", TensorProto.FLOAT, ["batch", length]),
        helper.make_tensor_value_info("rate", TensorProto.INT64, []),
    ]
    branches = {}
    for name, width in (("high", 512), ("low", 256)):
        weight = helper.make_tensor("w", TensorProto.FLOAT, [width, 2], [0.5] * width * 2)
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        product = helper.make_node("MatMul", ["sound", "w"], ["y"], name=name)
        branches[name] = helper.make_graph([product], name, [], [output], [weight])
    limit = helper.make_tensor("limit", TensorProto.INT64, [], [16000])
    nodes = [
        helper.make_node("Equal", ["rate", "limit"], ["is_high"]),
        helper.make_node(
            "If", ["is_high"], ["z"], then_branch=branches["high"], else_branch=branches["low"]
        ),
    ]
    output = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "listener", ports, [output], [limit])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def sound(tmp_path):
    return listener(tmp_path / "listener.onnx")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def measured(capsys, *arguments):
    code, table, _ = say(capsys, "bench", "--quick", *arguments, "--json", "result.json")
    with open("result.json", encoding="utf-8") as stream:
        return code, table, json.load(stream)["models"]


def test_a_guess_is_shown_and_so_is_what_a_scalar_was(sound, capsys):
    code, table, (row,) = measured(capsys, sound)
    assert code == 0
    assert row["shapes"] == {"sound": [1, 256], "rate": []}
    head, _, line, *_ = table.splitlines()
    assert head.endswith("inputs")
    assert line.endswith("1x256, scalar")
    assert (
        "listener.onnx: it leaves sizes open, and these are guesses: sound 1x256; --shape "
        "sound=SIZES gives others" in table
    )
    assert (
        "listener.onnx: its scalar rate was 1, which may decide what it computes; --inputs "
        "FILE.npz gives another" in table
    )


def test_what_is_told_is_used(sound, capsys):
    np.savez("inputs.npz", rate=16000)
    for shape, sizes in (("sound=3x512", [3, 512]), ("samples=512", [1, 512])):
        code, table, (row,) = measured(capsys, sound, "--shape", shape, "--inputs", "inputs.npz")
        assert code == 0
        assert row["shapes"] == {"sound": sizes, "rate": []}
        assert "guesses" not in table
        assert "scalar rate" not in table


def test_what_is_told_and_does_not_run_says_so(sound, capsys):
    code, table, (row,) = measured(capsys, sound, "--shape", "samples=512")
    assert code == 1
    assert re.fullmatch(
        r"its operator MatMul \('low'\) fails on these inputs: .*; it was given sound 1x512, rate "
        r"scalar: give the sizes of sound \[batch, samples\] with --shape sound=SIZES, or give it "
        r"inputs with --inputs FILE\.npz\.",
        row["error"],
    )
    assert row["shapes"] == {}
    assert row["error"] in table


def with_batch(path, batch, new):
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, new)
    return new


def test_two_sizes_of_one_net_are_not_compared(sound, capsys):
    once, twice = (with_batch(sound, batch, f"{batch}.onnx") for batch in (1, 2))
    code, table, rows = measured(capsys, once, twice)
    assert code == 0
    assert rows[0]["speedup"]["verdict"] == "baseline"
    assert rows[1]["speedup"] is None
    assert rows[1]["latency"]["p50_s"] > 0
    assert re.search(r"^2\.onnx .* not compared ", table, re.MULTILINE)
    assert (
        "2.onnx: it is not compared: it ran with sound 2x256, and 1.onnx with sound 1x256; --shape "
        "sets the open ones" in table
    )


def test_an_open_batch_is_that_of_the_other_file(sound, capsys):
    code, table, rows = measured(capsys, sound, with_batch(sound, 2, "2.onnx"))
    assert code == 0
    assert [row["shapes"]["sound"] for row in rows] == [[2, 256], [2, 256]]
    assert rows[1]["speedup"]["value"] > 0
    assert "listener.onnx: it leaves sizes open, and was given those of 2.onnx" in table


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--shape", "sound"], "--shape takes NAME=SIZES, as in --shape input=1x512; got 'sound'."),
        (["--shape", "=1x2"], "--shape takes NAME=SIZES, as in --shape input=1x512; got '=1x2'."),
        (["--shape", "x=1x-2"], "as in --shape input=1x512; got 'x=1x-2'."),
        (["--shape", "x=1,2"], "as in --shape input=1x512; got 'x=1,2'."),
        (["--shape", "x="], "as in --shape input=1x512; got 'x='."),
        (
            ["--shape", "noise=1x2"],
            "of that name; there are inputs sound, rate and axes batch, samples.",
        ),
        (
            ["--shape", "samples=1x2"],
            "--shape samples=1x2: no file has an input of that name; there are",
        ),
        (["--inputs", "gone.npz"], "--inputs gone.npz: there is no such file."),
        (["--inputs", "text.npz"], "--inputs text.npz: no .npz file that can be read ("),
        (
            ["--inputs", "noise.npz"],
            "--inputs: no file has an input 'noise'; there are sound, rate.",
        ),
        (
            ["--inputs", "sound.npz", "--shape", "sound=1x2"],
            "--shape sound and --inputs sound.npz both have the input 'sound'; leave one out.",
        ),
    ],
)
@pytest.mark.parametrize("way", [["--quick"], ["--profile", "--quick"], ["--sustained", "5"]])
def test_what_cannot_be_told_is_refused_in_a_sentence(way, option, said, sound, capsys):
    with open("text.npz", "w", encoding="utf-8") as stream:
        stream.write("no arrays")
    np.savez("noise.npz", noise=np.zeros(1))
    np.savez("sound.npz", sound=np.zeros((1, 256), np.float32))
    code, out, err = say(capsys, "bench", *way, sound, *option)
    assert (code, out) == (2, "")
    assert err.startswith("compresskit: ")
    assert said in err


@pytest.mark.parametrize("option", ["--shape=x=1", "--inputs=i.npz"])
def test_the_nets_of_a_suite_have_inputs_of_their_own(option, capsys):
    code, _, err = say(capsys, "bench", "--suite", "tiny", option)
    assert code == 2
    name = option.partition("=")[0]
    assert f"{name} is for ONNX files; --keep those of the suite and name them." in err


def test_a_profile_takes_sizes_and_inputs(sound, capsys):
    np.savez("inputs.npz", rate=np.array(16000))
    options = ("--shape", "sound=2x512", "--inputs", "inputs.npz", "--json", "profile.json")
    code, text, _ = say(capsys, "bench", "--profile", "--quick", sound, *options)
    assert code == 0
    assert "runs of 2 samples" in text or "a run of 2 samples" in text
    assert "inputs: sound 2x512, rate scalar" in text
    with open("profile.json", encoding="utf-8") as stream:
        (own,) = json.load(stream)["models"]
    assert own["shapes"] == {"sound": [2, 512], "rate": []}
    code, text, _ = say(capsys, "bench", "--profile", "--quick", sound, "--shape", "sound=2x5")
    assert code == 1
    assert "fails on these inputs" in text
    assert "it was given sound 2x5, rate scalar: give the sizes of sound [batch, samples]" in text


def test_a_sustained_run_takes_sizes_and_inputs(sound, capsys):
    np.savez("inputs.npz", rate=np.array(16000))
    options = ("--shape", "samples=512", "--inputs", "inputs.npz", "--json", "sustained.json")
    code, text, _ = say(capsys, "bench", "--sustained", "5", sound, *options)
    assert code == 0
    assert "inputs: sound 1x512, rate scalar" in text
    with open("sustained.json", encoding="utf-8") as stream:
        (own,) = json.load(stream)["models"]
    assert own["shapes"] == {"sound": [1, 512], "rate": []}
    assert own["notes"] == []
    code, text, _ = say(capsys, "bench", "--sustained", "5", sound, "--shape", "sound=2x5")
    assert code == 1
    assert "it was given sound 2x5, rate scalar: give the sizes of sound [batch, samples]" in text
