"""Files that cannot be measured: each is a row that says why in one plain sentence."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import MeasurementError
from compress.measure import process
from compress.measure.compare import compare, model_bytes, table
from compress.measure.local import LocalTarget
from compress.measure.ondevice import machine, worker
from compress.measure.runtime_errors import readable_error

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model(path, nodes, inputs, outputs, weights=(), opset=20, ir_version=10, domains=()):
    graph = helper.make_graph(
        nodes,
        "bad",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in dict(weights).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=ir_version), path)


def one_node(path, operator, *, kind=FLOAT, shape=(1, 4), opset=20, ir_version=10, domain=""):
    model(
        path,
        [helper.make_node(operator, ["x"], ["y"], name="the_node", domain=domain)],
        {"x": (kind, shape)},
        {"y": (kind, shape)},
        opset=opset,
        ir_version=ir_version,
        domains=[domain] if domain else [],
    )


# -- one function for each kind of bad file ---------------------------------------------------


def text(path):
    path.write_text("not a model")


def archive(path):
    path.write_bytes(b"PK\x03\x04" + bytes(100))


def empty(path):
    path.touch()


def folder(path):
    path.mkdir()


def gone(path):
    pass


def pipe(path):
    os.mkfifo(path)


def cut(path):
    one_node(path, "Neg")
    path.write_bytes(path.read_bytes()[:-20])


def damaged(path):
    one_node(path, "Neg")
    content = path.read_bytes()
    begin = content.index(b"the_node")
    path.write_bytes(content[:begin] + b"\xff" * 60 + content[begin + 60 :])


def garbled(path):
    one_node(path, "Neg")
    path.write_bytes(path.read_bytes().replace(b"Neg", b"\xff" * 3))


def unknown_operator(path):
    one_node(path, "Frobnicate")


def custom_operator(path):
    one_node(path, "Frobnicate", domain="my.operators")


def future_opset(path):
    one_node(path, "Neg", opset=99)


def future_format(path):
    one_node(path, "Neg", ir_version=99)


def without_kernel(path):
    model(
        path,
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        {"x": (TensorProto.DOUBLE, (1, 1, 4, 4))},
        {"y": (TensorProto.DOUBLE, (1, 1, 2, 2))},
        {"w": np.ones((1, 1, 3, 3))},
    )


def without_its_data(path):
    weight = {"w": np.ones((4, 4), np.float32)}
    model(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (FLOAT, (1, 4))},
        {"y": (FLOAT, (1, 4))},
        weight,
    )
    loaded = onnx.load(path)
    onnx.save(loaded, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    path.with_name("w.bin").unlink()


def with_half_of_its_data(path):
    without_its_data(path)
    path.with_name("w.bin").write_bytes(bytes(10))


def with_data_outside(path):
    without_its_data(path)
    path.parent.with_name("secret.bin").write_bytes(bytes(64))
    loaded = onnx.load(path, load_external_data=False)
    loaded.graph.initializer[0].external_data[0].value = "../secret.bin"
    path.write_bytes(loaded.SerializeToString())


def with_data_at_an_absolute_path(path):
    without_its_data(path)
    loaded = onnx.load(path, load_external_data=False)
    loaded.graph.initializer[0].external_data[0].value = "/etc/passwd"
    path.write_bytes(loaded.SerializeToString())


def with_a_pipe_for_data(path):
    without_its_data(path)
    os.mkfifo(path.with_name("w.bin"))


def a_huge_batch(path):
    one_node(path, "Neg", shape=(2**62, 4))


def names_of_control_characters(path):
    model(
        path,
        [helper.make_node("Neg", ["gone\x1b[31m\n"], ["y"])],
        {"x": (FLOAT, (1, 4))},
        {"y": (FLOAT, (1, 4))},
    )


def sequence_input(path):
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    graph = helper.make_graph(
        [helper.make_node("SequenceLength", ["x"], ["y"])],
        "bad",
        [helper.make_value_info("x", sequence)],
        [helper.make_tensor_value_info("y", INT64, ())],
    )
    imports = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)


def nothing_at_all(path):
    model(path, [], {}, {})


def no_outputs(path):
    model(path, [helper.make_node("Neg", ["x"], ["y"])], {"x": (FLOAT, (1, 4))}, {})


def output_that_numpy_lacks(path):
    kind = TensorProto.BFLOAT16
    model(
        path,
        [helper.make_node("Cast", ["x"], ["y"], to=kind)],
        {"x": (FLOAT, (1, 4))},
        {"y": (kind, (1, 4))},
    )


def an_input_twice(path):
    one_node(path, "Neg")
    loaded = onnx.load(path)
    loaded.graph.input.append(loaded.graph.input[0])
    path.write_bytes(loaded.SerializeToString())


def open_size_that_is_not_free(path):
    model(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="head")],
        {"x": (FLOAT, ("n", "k"))},
        {"y": (FLOAT, ("n", 3))},
        {"w": np.ones((5, 3), np.float32)},
    )


def table_of_one_row(path):
    model(
        path,
        [helper.make_node("Gather", ["w", "ids"], ["y"], name="embed")],
        {"ids": (INT64, ("n", 7))},
        {"y": (FLOAT, ("n", 7, 3))},
        {"w": np.ones((1, 3), np.float32)},
    )


def reshape_of_one_batch(path):
    model(
        path,
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="flat")],
        {"x": (FLOAT, ("n", 4))},
        {"y": (FLOAT, (5,))},
        {"shape": np.array([5])},
    )


def tera(path, source="x"):
    """Makes 4 TiB of its one input, or of a constant."""
    inputs = {"x": (FLOAT, (1, 1))}
    model(
        path,
        [
            helper.make_node("Expand", [source, "shape"], ["wide"], name="widen"),
            helper.make_node("ReduceMax", ["wide"], ["most"], keepdims=1),
            helper.make_node("Add", ["most", "x"], ["y"]),
        ],
        inputs,
        {"y": (FLOAT, (1, 1))},
        {"shape": np.array([2**20, 2**20]), "one": np.ones((1, 1), np.float32)},
    )


def tera_of_a_constant(path):
    tera(path, "one")


SENTENCES = [
    (text, r"it is not an ONNX file\."),
    (archive, r"it is not an ONNX file\."),
    (empty, r"the file is empty\."),
    (folder, r"it is a folder; give the ONNX files in it\."),
    (gone, r"there is no such file\."),
    (pipe, r"it is no regular file\."),
    (cut, r"the file is cut off: at least \d+ bytes are missing at its end\."),
    (damaged, r"the file is damaged: it begins as an ONNX file does, and cannot be parsed\."),
    (garbled, r"the file is damaged: it begins as an ONNX file does, and cannot be parsed\."),
    (unknown_operator, r"its operator Frobnicate does not exist in opset 20 of this onnxruntime\."),
    (
        custom_operator,
        r"its operator my\.operators:Frobnicate is unknown to this onnxruntime, and libraries of custom operators cannot be loaded here\.",
    ),
    (
        future_opset,
        r"it needs opset 99, and this onnxruntime knows up to \d+: export it with an older opset, or update onnxruntime\.",
    ),
    (
        future_format,
        r"it is written in IR version 99 of the format, and this onnxruntime reads up to \d+: save it with an older onnx, or update onnxruntime\.",
    ),
    (
        without_kernel,
        r"its operator Conv \(of opset \d+\) has no implementation for these types on the CPU in this onnxruntime, or none so old: export it in float32, or with a newer opset\.",
    ),
    (
        without_its_data,
        r"its external data file 'w\.bin' is missing; it has to lie beside the model\.",
    ),
    (
        with_half_of_its_data,
        r"its external data is cut off: the model reads 64 bytes at once, and the file has 10; copy it again\.",
    ),
    (
        with_data_outside,
        r"its external data '\.\./secret\.bin' lies outside of its folder, and is not read; it has to lie beside the model\.",
    ),
    (
        with_data_at_an_absolute_path,
        r"its external data has an absolute path, which is not followed; it has to lie beside the model\.",
    ),
    (with_a_pipe_for_data, r"its external data 'w\.bin' is no regular file; copy it again\."),
    (a_huge_batch, r"it does not fit into this machine's memory: it needs more.*\."),
    (names_of_control_characters, r"onnxruntime cannot use it: .*gone\\x1b.*"),
    (
        sequence_input,
        r"the input 'x' has type seq\(tensor\(float\)\); only tensors can be fed to it here\.",
    ),
    (nothing_at_all, r"its graph is empty: it has no inputs, no operators and no outputs\."),
    (no_outputs, r"it has no outputs, and without any onnxruntime runs nothing\."),
    (
        output_that_numpy_lacks,
        r"it has an output of type bfloat16, which numpy cannot hold; a Cast to float32 after it would do\.",
    ),
    (
        an_input_twice,
        r"onnxruntime cannot use it: Duplicate definition-site for \(x\)\.",
    ),
    (
        open_size_that_is_not_free,
        r"its operator MatMul \('head'\) fails on these inputs: .*dimension mismatch.*\.",
    ),
    (
        table_of_one_row,
        r"its operator Gather \('embed'\) reads row 1 of a table of 1: give ids that are in range\.",
    ),
    (reshape_of_one_batch, r"its operator Reshape \('flat'\) fails on these inputs: .*\."),
    (
        tera,
        r"it does not fit into this machine's memory: its operator Expand \('widen'\) needs 4096 GiB; [\d.]+ [GM]iB are free for it\.",
    ),
    (
        tera_of_a_constant,
        r"it does not fit into this machine's memory: its operator Expand \('widen'\) needs 4096 GiB; [\d.]+ [GM]iB are free for it\.",
    ),
]


def complaint(path):
    """What is said of a file, without a process for each: loading and running are as in one."""
    answer = worker.answer(json.dumps({"kind": "memory", "model": str(path)}))
    return readable_error(answer["error"])


@pytest.mark.parametrize(("make", "sentence"), SENTENCES, ids=lambda v: getattr(v, "__name__", ""))
def test_a_bad_file_is_explained_in_one_plain_sentence(make, sentence, tmp_path):
    path = tmp_path / "bad.onnx"
    make(path)
    if make in (tera, tera_of_a_constant):
        with pytest.raises(MeasurementError) as caught:
            LocalTarget().work("memory", path, {})
        said = str(caught.value).removeprefix(f"{path}: ")
    else:
        said = complaint(path)
    assert re.fullmatch(sentence, said)
    assert not re.search(r"\[ONNXRuntimeError\]|\.cc:|\.h:|_src/|\n|::", said)
    assert len(said) < 400


def test_the_others_are_measured_nevertheless(tmp_path, hasty, one):
    bad = [tmp_path / f"{make.__name__}.onnx" for make in (text, tera, folder)]
    for path, make in zip(bad, (text, tera, folder), strict=True):
        make(path)
    long = tmp_path / f"{'a' * 300}.onnx"
    rows = compare([bad[0], one, *bad[1:], long], LocalTarget(), "quick", raw=tmp_path / "raw")
    assert [row.error is None for row in rows] == [False, True, False, False, False]
    assert rows[1].latency.p50_s > 0
    printed = table(rows)
    assert "tera.onnx: it does not fit into this machine's memory" in printed
    assert "folder.onnx: it is a folder" in printed
    assert "a.onnx: there is no such file." in printed


def test_a_file_larger_than_any_onnx_file_is_not_read_into_memory(tmp_path, monkeypatch):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as stream:
        stream.truncate(3 << 30)  # takes no disk
    monkeypatch.setattr(onnx, "load", None)
    assert model_bytes(path) == 3 << 30


# -- memory -----------------------------------------------------------------------------------


def many_tensors(path):
    """64 MiB at a time, all of it kept: 1 GiB in the end."""
    names = [f"y{number}" for number in range(16)]
    model(
        path,
        [helper.make_node("Expand", ["x", "shape"], [name], name=name) for name in names],
        {"x": (FLOAT, (1, 1))},
        dict.fromkeys(names, (FLOAT, (2**12, 2**12))),
        {"shape": np.array([2**12, 2**12])},
    )


def test_a_model_that_grows_past_what_is_allowed_fails_by_itself(tmp_path):
    path = tmp_path / "many.onnx"
    many_tensors(path)
    job = {"kind": "memory", "model": str(path), "memory_bytes": 200 << 20}
    with pytest.raises(
        MeasurementError,
        match=r"many\.onnx: it does not fit into this machine's memory: its operator Expand "
        r"\('y\d+'\) needs 64.0 MiB; 200 MiB are free for it\.",
    ):
        process.run_worker(job, timeout_s=60)


def test_inputs_that_do_not_fit_are_memory_too(tmp_path):
    path = tmp_path / "wide.onnx"
    one_node(path, "Neg", shape=("n", 2**28))
    job = {"kind": "memory", "model": str(path), "memory_bytes": 200 << 20}
    with pytest.raises(
        MeasurementError, match=r"does not fit into this machine's memory: it needs"
    ):
        process.run_worker(job, timeout_s=60)


BOUNDED = """
import json, resource, sys
sys.path.insert(0, {folder!r})
from compress.measure.ondevice import machine, worker
before = resource.getrlimit(resource.RLIMIT_AS)
answer = worker.answer(json.dumps({job!r}), bounded=True)
print(json.dumps([
    resource.getrlimit(resource.RLIMIT_DATA)[0] - machine.free_memory_bytes(),
    resource.getrlimit(resource.RLIMIT_AS) == before,
    open("/proc/self/oom_score_adj").read().strip(),
    "error" in answer,
]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits are read from /proc")
def test_the_worker_leaves_memory_to_others_and_goes_first(one):
    job = {"kind": "inspect", "model": str(one)}
    code = BOUNDED.format(folder=str(process.WORKER.parents[3]), job=job)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    beyond, same_address_space, score, failed = json.loads(done.stdout)
    assert beyond < 0.05 * machine.free_memory_bytes()
    assert same_address_space
    assert score == "1000"
    assert not failed


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "max", "memory.current": "5"}, float("inf")),
        ({"memory.max": "100", "memory.current": "30", "memory.stat": "anon 1\nfile 9"}, 70),
        (
            {
                "memory.max": "100",
                "memory.current": "30",
                "memory.stat": "anon 1\ninactive_file 20\nactive_file 3",
            },
            90,
        ),
        ({"memory.limit_in_bytes": "50", "memory.usage_in_bytes": "20"}, 30),
        ({}, float("inf")),
    ],
)
def test_container_limits_of_memory_are_read_in_both_versions(tmp_path, files, free):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert machine.memory_room(tmp_path) == free


# -- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("there is no such file.", "there is no such file."),
        ("no answer within 5 s; the process was stopped.",) * 2,
        (
            "RuntimeException: [ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: /onnxruntime_src/onnxruntime/core/x.cc:42 void onnxruntime::F(int) Something else went wrong",
            "onnxruntime cannot use it: Exception during initialization: Something else went wrong.",
        ),
        (
            "InvalidArgument: [ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: x for the following indices index: 1 Got: 5 Expected: 4 Please fix either the inputs/outputs or the model.",
            "its input 'x' takes 4 along axis 1, and was given 5.",
        ),
        (
            "MemoryError: Unable to allocate 4 GiB [the process may take 1048576 bytes of memory]",
            "it does not fit into this machine's memory: it needs more; 1.00 MiB are free for it.",
        ),
        (
            "it ran out of memory: std::bad_alloc.",
            "it does not fit into this machine's memory: it needs more.",
        ),
        (
            "Fail: [ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running If node. Name:'' Status Message: Non-zero status code returned while running Dropout node. Name:'drop' Status Message: /onnxruntime_src/onnxruntime/core/x.h:42 float onnxruntime::{anonymous}::F(const onnxruntime::Tensor*) [with T2 = float] 0.0f <= ratio && ratio < 1.0f was false. ratio must be in the range [0, 1)",
            "its operator Dropout ('drop') fails on these inputs: ratio must be in the range [0, 1).",
        ),
        (
            "InvalidArgument: [ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Invalid rank for input: x Got: 2 Expected: 0 Please fix either the inputs/outputs or the model.",
            "its input 'x' takes 0 axes, and was given 2.",
        ),
        (
            "Fail: [ONNXRuntimeError] : 1 : FAIL : Exception during initialization: /onnxruntime_src/onnxruntime/core/providers/cpu/text/string_normalizer.cc:235 onnxruntime::StringNormalizer::Locale::Locale(const std::string&)::<lambda()> Failed to construct locale with name:en_US.UTF-8:locale::facet::_S_create_c_locale name not valid:Please, install necessary language-pack-XX and configure locales",
            "its operator StringNormalizer needs the locale en_US.UTF-8, which this machine lacks: install it, as with `locale-gen en_US.UTF-8`.",
        ),
        (f"Fail: [ONNXRuntimeError] : 1 : FAIL : {'x' * 999}", None),
    ],
)
def test_words_that_are_not_known_are_passed_on_without_places(words, said):
    found = readable_error(words)
    assert found == said if said else len(found) < 400
    assert readable_error(found) == found


def test_a_native_thread_that_finds_no_memory_is_no_mystery(tmp_path, monkeypatch):
    abort = tmp_path / "worker.py"
    abort.write_text(
        "import os, sys\n"
        "sys.stderr.write(\"terminate called after throwing an instance of 'std::bad_alloc'\")\nsys.stderr.flush()\nos.abort()\n"
    )
    monkeypatch.setattr(process, "WORKER", abort)
    with pytest.raises(MeasurementError, match=r"m\.onnx: it does not fit into this machine's mem"):
        process.run_worker({"kind": "time", "model": "m.onnx"}, timeout_s=60)
