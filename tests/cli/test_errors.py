"""Bad input: one sentence on standard error, the right exit code, nothing lost."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress.cli import main
from compress.record import Record


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """Runs a recipe that must be refused; the exit code and the message."""
    monkeypatch.chdir(tmp_path)

    def call(text, *arguments, command="run"):
        Path("r.yaml").write_text(text)
        code = main([command, "r.yaml", *arguments])
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert "Traceback" not in message
        assert message.startswith("compresskit: ")
        return code, message.removeprefix("compresskit: ")

    return call


def recipe(stages="  - {kind: quantize}", task="digits", model="{arch: mlp, in_features: 64}"):
    return f"schema: 1\nname: r\ntask: {task}\nmodel: {model}\nstages:\n{stages}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (recipe("  - {kind: train, epoch: 3}"), r"r\.yaml:6: stages\[0\]\.epoch: unknown key; did you mean 'epochs'"),
        (recipe("  - {kind: train, epochs: many}"), r"r\.yaml:6: stages\[0\]\.epochs: should be a valid integer.*got 'many'"),
        (recipe("  - {kind: prune, ratio: 1.5}"), r"r\.yaml:6: stages\[0\]\.ratio: should be less than 1; got 1\.5"),
        (recipe("  - {kind: shrink}"), r"stages\[0\]\.kind: there is no stage 'shrink'; known are train, distill"),
        (recipe("  - quantize"), r"stages\[0\]: a stage is a mapping with a `kind`"),
        (recipe("  []").replace("stages:\n  []", "stages: []"), r"stages: should have at least 1 item; got \[\]\.$"),
        (recipe().replace("name: r", "name: größe"), r"name: should match pattern '\^\[A-.*'; got 'größe'"),
        ("schema: 1\nname: r\n", r"the key 'stages' is missing"),
        ("schema: 1\nstage: []\n", r":2: stage: unknown key; did you mean 'stages'"),
        (recipe() + "color: red\n", r"r\.yaml:7: color: unknown key"),
        (recipe(task="digit"), r"task.*: there is no built-in task 'digit'; did you mean 'digits'"),
        (recipe(model="{arch: resnett}"), r"resnett.*did you mean 'resnet'|no built-in architecture 'resnett'"),
        (recipe(model="{arch: mlp, depth_of_it: 3}"), r"depth_of_it"),
        (recipe("  - {kind: quantize, weights: int7}"), r"stages\[0\]\.weights: should be 'float32'.*got 'int7'"),
        (recipe("  - {kind: quantize, weights: float32, activations: int8}"), r"activations: int8 needs integer weights"),
        (recipe("  - {kind: prune, granularity: heads, scope: global}"), r"heads are counted in each block, and go with scope: local"),
        (recipe("  - {kind: prune, granularity: heads, round_to: 4}"), r"round_to is for granularity channels"),
        (recipe("  - {kind: distill, student: {layers: []}}"), r"stages\[0\]\.student\.layers: .*at least 1 item"),
        (recipe("  - {kind: distill, teacher: {hf: x, onnx: y}}"), r"a teacher is one of onnx, callable, hf, or arch .*got onnx and hf"),
        (recipe("  - {kind: distill, teacher: {hf: x, taks: y}}"), r"teacher\.taks: Extra inputs are not permitted"),
        (recipe("  - {kind: prune, granularity: '4:2'}"), r"granularity is channels, heads, blocks, embeddings, weights, N:M .* got '4:2'"),
        (recipe("  - {kind: prune, granularity: weights, round_to: 8}"), r"round_to is for granularity channels"),
        (recipe("  - {kind: prune, granularity: weights, importance: taylor}"), r"importance taylor is for channels"),
        (recipe("  - {kind: prune, of: original, scope: global}"), r"of: original counts per layer"),
        (recipe("  - {kind: distill, losses: [{kind: label}]}"), r"no loss needs the teacher"),
        (recipe("  - {kind: distill, losses: [{kind: kl}]}"), r"unknown loss 'kl'; known are response"),
        (recipe("  - {kind: distill, teacher: {}}"), r"a teacher is one of onnx, callable, hf, or arch .*none of them"),
        (recipe("  - {kind: distill, teacher: {arch: mlp}}"), r"a teacher of its own architecture needs weights"),
        (recipe("  - {kind: distill, teacher: {onnx: t.onnx, width: 3}}"), r"width goes with arch"),
        (recipe("  - {kind: distill, teacher: {onnx: t.onnx}}"), r"teacher\.onnx: t\.onnx: there is no such file"),
        (recipe("  - {kind: distill, teacher: t.onnx}"), r"stages\[0\]\.teacher: a teacher is a block such as {onnx: t\.onnx}; got 't\.onnx'"),
        (recipe("  - {kind: distill, teacher: 'm:f'}"), r"stages\[0\]\.teacher: a teacher is a block such as {callable: m:f}; got 'm:f'"),
        (recipe("  - {kind: distill, teacher: [3]}"), r"stages\[0\]\.teacher\[0\]: a teacher is a block such as {arch: resnet, weights: FILE}; got '3'"),
        (recipe("  - {kind: distill, teacher: {arch: t.onnx}}"), r"stages\[0\]\.teacher: of an ONNX file the key is onnx; write {onnx: t\.onnx}"),
        (recipe("  - {kind: distill, teacher: {arch: mlp, weights: t.onnx}}"), r"stages\[0\]\.teacher: of an ONNX file the key is onnx; write {onnx: t\.onnx}"),
        (recipe("  - {kind: distill, teacher: [{hf: t.onnx}]}"), r"stages\[0\]\.teacher\[0\]: of an ONNX file the key is onnx; write {onnx: t\.onnx}"),
        (recipe(model="{arch: mlp, in_features: 64, weights: t.onnx}"), r"model\.weights: an ONNX file is neither an architecture nor its weights: t\.onnx can teach .*; weights are a safetensors file, or a state dict of torch.save"),
        (recipe("  - {kind: distill, teacher: {arch: mlp, weights: w, output: y}}"), r"stages\[0\]\.teacher: output goes with onnx, and the teacher is arch"),
        (recipe("  - {kind: distill, losses: [{kind: perceptual, layers: a, network: {arch: t.onnx}}]}"), r"network\.arch: an ONNX file is neither an architecture nor .*: t\.onnx can teach \(`teacher: {onnx: t\.onnx}`"),
        (recipe("  - {kind: distill, student: 3}"), r"stages\[0\]\.student: a student is self, or a block such as .*; got 3"),
        (recipe(model="resnet"), r"r\.yaml:4: model: a model is a block such as {arch: resnet}; got 'resnet'"),
        (recipe(model="[resnet]"), r"r\.yaml:4: model: a model is a block such as {arch: resnet}; got \['resnet'\]"),
        (recipe("  - {kind: distill, teacher: []}"), r"stages\[0\]\.teacher.*at least 1 item"),
        (recipe("  - {kind: distill, teacher: [{onnx: t.onnx}, {arch: mlp}]}"), r"stages\[0\]\.teacher\[1\]: a teacher of its own architecture needs weights"),
        (recipe("  - {kind: distill, teacher: [{onnx: t.onnx}]}"), r"teacher\.onnx: t\.onnx: there is no such file"),
        (recipe("  - {kind: distill, cache: {dtype: float16}}"), r"cache goes with views: without them the teacher sees no batch twice"),
        (recipe("  - {kind: distill, views: 2, cache: {dtype: int8}}"), r"stages\[0\]\.cache\.dtype: should be 'float32' or 'float16'; got 'int8'"),
        (recipe("  - {kind: distill, views: 2, cache: {most_mib: 0}}"), r"stages\[0\]\.cache\.most_mib: should be greater than or equal to 1; got 0"),
        (recipe("  - {kind: train, mix: {kind: cutout}}"), r"stages\[0\]\.mix\.kind: should be 'mixup' or 'cutmix'; got 'cutout'"),
        (recipe("  - {kind: train, mix: {alpha: .inf}}"), r"stages\[0\]\.mix\.alpha: should be a finite number; got inf"),
        (recipe("  - {kind: train, label: '../../etc'}"), r"stages\[0\]\.label: .*pattern"),
        (recipe().replace("name: r", "name: ../up"), r"r\.yaml:2: name: .*pattern"),
        (recipe("  - {kind: prune, ratio: {choose: [0.1, 0.2]}}"), r"stages\[0\]\.ratio: this is a sweep value"),
        (recipe("  - {kind: quantize}\n  bad"), r"r\.yaml:\d+: not valid YAML"),
        (recipe("  - {kind: my_parts:Stage}"), r"only imported when you name it: add `--import my_parts`"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_refused_with_its_place(text, message, refused):
    code, said = refused(text)
    assert re.search(message, said), said
    assert code == 2


ONNX_MODELS = ["f.onnx", "{onnx: f.onnx}", "{arch: f.onnx}", "{hf: f.onnx}", "F.ONNX"]


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("model", ONNX_MODELS)
def test_an_onnx_file_cannot_begin_a_recipe(model, command, refused):
    code, said = refused(recipe(model=model), command=command)
    assert code == 2
    file = "F.ONNX" if model == "F.ONNX" else "f.onnx"
    assert said == (
        f"r.yaml:4: model: an ONNX file cannot begin a recipe yet: {file} can teach (`teacher: "
        f"{{onnx: {file}}}` in a distill stage) and be measured (`compresskit bench {file}`); begin "
        "with arch and weights, or hf."
    )


@pytest.mark.parametrize("student", ONNX_MODELS)
def test_an_onnx_file_cannot_learn(student, refused):
    code, said = refused(recipe(f"  - {{kind: distill, student: {student}}}"), command="plan")
    assert code == 2
    assert re.fullmatch(
        r"r\.yaml:6: stages\[0\]\.student: an ONNX file cannot learn: f\.onnx can teach .*; a student "
        r"is arch, hf, layers or self\.",
        said,
        re.IGNORECASE,
    )


def test_a_model_that_is_set_on_the_command_line_is_looked_at_too(refused):
    code, said = refused(recipe(), "--set", "model=f.onnx")
    assert code == 2
    assert "model: an ONNX file cannot begin a recipe yet: f.onnx can teach" in said


def test_the_file_is_measured_by_its_path_from_here(refused, tmp_path, capsys):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "r.yaml").write_text(recipe(model="f.onnx"))
    refused(recipe("  []"))
    assert main(["plan", "below/r.yaml"]) == 2
    said = capsys.readouterr().err
    assert "`teacher: {onnx: f.onnx}`" in said
    assert "`compresskit bench below/f.onnx`" in said


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (recipe(), ["--set", "stages.4.epochs=1"], r"'4' is not an index"),
        (recipe(), ["--quick", "--strict"], r"--quick and --strict exclude each other"),
        (recipe(), ["--track", "mlfow"], r"a tracker is one of mlflow, tensorboard, wandb.*got 'mlfow'"),
        (recipe("  - {kind: nowhere_parts:X}"), ["--import", "nowhere_parts"], r"cannot be imported"),
        (recipe("  - {kind: json:JSONDecoder}"), ["--import", "json"], r"'json:JSONDecoder' is not a subclass of compress\.Stage"),
        (recipe("  - {kind: json:dumps}"), ["--import", "json"], r"stages\[0\]\.kind: json:dumps is called with \(candidate, context\), and takes obj"),
        (recipe("  - {kind: json:gone}"), ["--import", "json"], r"the module 'json' has no 'gone'"),
        (recipe(task="json:dumps"), ["--import", "json"], r"r\.yaml:3: task: json:dumps needs the key 'obj'"),
        (recipe(model="{arch: 'collections:OrderedDict'}"), ["--import", "collections"], r"must give a torch\.nn\.Module; got OrderedDict"),
        (recipe(model="{arch: 'collections:OrderedDict', x: 1, y: 2}", task="digits"), ["--import", "collections"], r"must give a torch\.nn\.Module"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_refused(text, arguments, message, refused):
    code, said = refused(text, *arguments)
    assert re.search(message, said), said
    assert code in (1, 2)


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("stages", "code", "message"),
    [
        ("  - {kind: quantize, select: [tail]}", 2, r"'tail' matches no layer; nearest are"),
        ("  - {kind: prune, ignore: [tail]}", 2, r"ignore: the pattern 'tail' matches no layer"),
        ("  - {kind: quantize}\n  - {kind: quantize, exclude: ['*']}", 1, r"stages\[1\] \(quantize-2\): quantize: exclude leaves none of the"),
        ("  - {kind: prune, ratio: 0.001}", 1, r"removes no channel from any layer"),
        ("  - {kind: distill, student: {arch: mlp, in_features: 64, classes: 3}}", 1, r"the model that learns has outputs for 3 classes and the task has 10 .* classes: 10"),
        ("  - {kind: distill, epochs: 5, views: 4, cache: {most_mib: 1}, losses: [{kind: hint, student: layers.0, teacher: layers.0}], student: {arch: mlp, in_features: 64, width: 64}}", 1, r"outputs and features for 4 views would take 1\.2 MiB of disk; the limit cache\.most_mib is 1\.0 MiB"),
        ("  - {kind: distill, teacher: {arch: mlp, in_features: 64, weights: gone.safetensors}}", 1, r"gone\.safetensors: there is no such file"),
    ],
)  # fmt: skip
def test_what_a_stage_cannot_do_is_known_to_plan_as_well(command, stages, code, message, refused):
    given, said = refused(recipe(stages), command=command)
    assert re.search(message, said), said
    assert re.match(r"stages\[[01]\] \([a-z0-9-]+\): ", said), said
    assert given == code


@pytest.mark.parametrize("command", ["run", "plan"])
def test_labels_that_are_not_there_are_missed_by_plan_as_well(command, refused):
    unlabeled = recipe("  - {kind: train}", task="{name: digits, inputs_only: true}")
    code, said = refused(unlabeled, command=command)
    assert code == 1
    assert re.match(r"stages\[0\] \(train\): the loss `label` needs labels and the training", said)


def test_a_loss_that_is_not_finite_says_where(refused):
    code, said = refused(
        recipe("  - {kind: train, learning_rate: 1.0e+30, clip_norm: null, optimizer: sgd}"),
        "--quick",
    )
    assert code == 1
    assert re.search(
        r"stages\[0\] \(train\): the training loss became (nan|inf) in epoch 1, step", said
    )
    assert Record.load(Path("runs/r")).status == "failed"


def test_weights_that_do_not_fit_are_refused(refused, tmp_path):
    from safetensors.torch import save_file
    from torch import nn

    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "w.safetensors")
    code, said = refused(recipe(model="{arch: mlp, in_features: 64, weights: w.safetensors}"))
    assert code == 1
    assert re.search(
        r"w\.safetensors: the weights do not fit the model: missing .*unexpected", said
    )


def test_a_data_set_that_is_damaged_is_refused_by_name(refused, tmp_path):
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for name in names:
        (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(b"nothing"))
    code, said = refused(recipe(task=f"{{name: fashion-mnist, folder: {tmp_path}}}"))
    assert code == 1
    assert "train-images-idx3-ubyte.gz" in said


DATA_DEPENDENT = """\
import torch
from torch import nn

class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        x = x.flatten(1)
        if float(x.sum()) > 0:
            x = -x
        return self.layer(x)
"""


def test_a_model_that_cannot_be_exported_is_explained(refused, tmp_path, monkeypatch):
    (tmp_path / "branching_parts.py").write_text(DATA_DEPENDENT)
    monkeypatch.syspath_prepend(tmp_path)
    code, said = refused(
        recipe(model="{arch: 'branching_parts:Branches'}"), "--import", "branching_parts"
    )
    assert code == 1
    assert re.search(
        r"decides by the values of a tensor .*a static graph cannot; use torch\.where", said
    )
    assert Record.load(Path("runs/r")).status == "failed"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "gone.yaml"], 2, r"gone\.yaml: there is no such recipe file"),
        (["report", "gone"], 2, r"there is no record here; give a folder that `compresskit run`"),
        (["bench", "gone.onnx"], 1, r""),
        (["bench", "gone.onnx", "--threads", "0"], 2, r"--threads must be at least 1; got 0"),
    ],
)
def test_files_that_are_not_there(arguments, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert re.search(message, err)
    if arguments[0] == "bench" and code == 1:
        assert "no such file" in out


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            {"artifact_kib": []},
            r"recipe: budget\.artifact_kib: should be a valid number; got \[\]\.",
        ),
        ({"size": 3}, r"recipe: budget\.size: "),
        (["artifact_kib"], r"recipe: budget: "),
    ],
)
def test_a_record_with_a_budget_that_is_none_is_refused(budget, message, tmp_path, capsys):
    kept = Path(__file__).parents[2] / "benchmarks/results/fashion-mnist/record.json"
    record = json.loads(kept.read_text())
    record["recipe"]["budget"] = budget
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert main(["report", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert re.search(rf"record\.json: not a record of schema 1: {message}", err)
    assert err.count("\n") == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 2}', "\x00\x01"])
def test_a_record_that_is_none_is_refused(text, tmp_path, capsys):
    (tmp_path / "record.json").write_text(text)
    assert main(["report", str(tmp_path)]) == 2
    assert re.search(
        r"record\.json: .*(not a record of schema 1|cannot be read|not readable as JSON)",
        capsys.readouterr().err,
    )


def test_an_unexpected_error_is_one_line_unless_debug(tiny, monkeypatch, capsys):
    def burst(*_, **__):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("compress.recipe.Recipe.execute", burst)
    assert main(["run", str(tiny)]) == 1
    assert "unexpected ZeroDivisionError: by zero" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        main(["run", str(tiny), "--debug"])


def start(tmp_path, recipe_text, preface=""):
    (tmp_path / "r.yaml").write_text(recipe_text)
    # A shell may have started the tests in its background, where Ctrl-C is ignored.
    heard = "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{preface}\n{heard}\nfrom compress.cli import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, "run", "r.yaml", "--quick", "--out", "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As many threads as the tests have: with others a training is another one.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(path, words, timeout_s=120):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if path.exists() and words in path.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{words!r} did not appear in {path}")


LONG = recipe(
    "  - {kind: train, epochs: 2}\n"
    "  - {kind: distill, epochs: 500, label: slow}\n"
    "  - {kind: prune, ratio: 0.3}"
)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGKILL, id="kill -9", marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGINT, id="ctrl-c"),
    ],
)
def test_a_run_that_is_killed_in_a_stage_goes_on_after_the_last_finished_one(how, tmp_path, capsys):
    process = start(tmp_path, LONG)
    wait_for(tmp_path / "run" / "log.jsonl", '"slow", "event": "epoch"')
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    record = Record.load(tmp_path / "run")
    assert [row.stage for row in record.rows] == ["input", "train"]
    assert all(row.measurements for row in record.rows)
    if how == signal.SIGINT:
        assert process.returncode == 1
        assert "interrupted; what was finished is kept" in said
        assert record.status == "interrupted"

    shorter = ["--set", "stages.1.epochs=1"]
    code = main(
        ["run", str(tmp_path / "r.yaml"), "--quick", "--out", str(tmp_path / "run"), *shorter]
    )
    assert code == 0
    progress = capsys.readouterr().err
    assert "train: epoch" not in progress
    rows = json.loads((tmp_path / "run" / "record.json").read_text())["rows"]
    assert [row["cached"] for row in rows] == [False, True, False, False]


def test_a_disk_that_fills_up_leaves_the_record_readable(tmp_path):
    # The limit on file size stands in for a full disk: writes beyond it fail in the same place.
    wide = recipe("  - {kind: train, epochs: 1}", model="{arch: mlp, in_features: 64, width: 400}")
    preface = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    process = start(tmp_path, wide, preface)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.search(r"could not be written \(File too large\); .*intact", said), said
    assert "Traceback" not in said
    assert Record.load(tmp_path / "run").status == "failed"


OWN = """\
import torch
from compress import Stage

class BrokenStage(Stage):
    kind: str = "broken"

    def run(self, candidate, context):
        return candidate.modul

class Net(torch.nn.Module):
    def __init__(self):
        raise OSError("no memory left for it")

def task():
    return 1 / 0

def raises(*tensors):
    raise RuntimeError("not\\n  today.")

def short(inputs):
    return torch.zeros(len(inputs) - 1, 10)

def not_finite(inputs):
    return torch.full((len(inputs), 10), float("nan"))

def vector(student, teacher, labels):
    return (student - teacher).abs().mean(1)

def number(student, teacher, labels):
    return 3.0
"""


@pytest.fixture
def own_parts(tmp_path, monkeypatch):
    """The module of that name, importable."""
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (recipe(task="own_parts:task"), 2, r"task 'own_parts:task': failed with ZeroDivisionError at .*own_parts\.py:15: division by zero\."),
        (recipe(model="{arch: 'own_parts:Net'}"), 2, r"arch 'own_parts:Net': failed with OSError at .*own_parts\.py:12: no memory left for it\."),
        (recipe("  - {kind: distill, teacher: {callable: 'own_parts:raises'}}"), 1, r"stages\[0\] \(distill\): failed with RuntimeError at .*own_parts\.py:18: not today \(--debug shows how it came to it\)\."),
        (recipe("  - {kind: distill, teacher: {callable: 'own_parts:short'}}"), 1, r"stages\[0\] \(distill\): the teacher own_parts:short must return one tensor with \d+ rows, one for each sample, or several by name; got \(\d+, 10\)"),
        (recipe("  - {kind: distill, teacher: {callable: 'own_parts:not_finite'}}"), 1, r"stages\[0\] \(distill\): the teacher returned values that are not finite"),
        (recipe("  - {kind: distill, losses: [{kind: response}, {kind: 'own_parts:raises'}]}"), 1, r"stages\[0\] \(distill\): failed with RuntimeError at .*own_parts\.py:18"),
        (recipe("  - {kind: distill, losses: [{kind: response}, {kind: 'own_parts:vector'}]}"), 1, r"the loss 'own_parts:vector' must return a tensor of one number, the mean over the batch; got \(\d+,\)"),
        (recipe("  - {kind: distill, losses: [{kind: response}, {kind: 'own_parts:number'}]}"), 1, r"the loss 'own_parts:number' must return .*; got float"),
    ],
)  # fmt: skip
def test_what_the_users_own_code_does_wrong_is_told_with_its_line(
    text, code, message, refused, own_parts
):
    given, said = refused(text, "--import", "own_parts", command="plan")
    assert re.search(message, said), said
    assert given == code


def test_a_stage_of_the_users_own_that_raises_is_placed(refused, own_parts):
    stages = "  - {kind: quantize}\n  - {kind: 'own_parts:BrokenStage'}"
    code, said = refused(recipe(stages), "--quick", "--import", "own_parts")
    assert code == 1
    assert re.search(r"stages\[1\] \(broken\): failed with AttributeError at .*own_parts", said)
    record = Record.load(Path("runs/r"))
    assert record.status == "failed"
    assert [row.stage for row in record.rows] == ["input", "quantize"]
    assert "AttributeError" in record.error


def test_a_module_that_cannot_even_be_read_is_told_with_its_line(refused, tmp_path, monkeypatch):
    (tmp_path / "torn_parts.py").write_text("import torch\n\nraise ValueError('not here')\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, said = refused(recipe(task="torn_parts:task"), "--import", "torn_parts")
    assert code == 2
    assert re.search(
        r"importing the module 'torn_parts' failed with ValueError at .*torn_parts\.py:3: not here",
        said,
    )
