"""docs/extending.md: its paths and names exist, and each of its examples does what it is for."""

import argparse
import ast
import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress import Candidate, QuantizeStage, Recipe, ReplayTarget, TrainStage
from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.cli import targets
from compress.config.references import CodeReferences
from compress.errors import AlreadySo
from compress.measure import quantities
from compress.measure.ondevice.predictions import inspect
from compress.measure.ondevice.runtimes import RUNTIMES, open_model
from compress.measure.remote.ssh import SshShell
from compress.measure.summary import declared_quantities
from compress.measure.target import Target
from compress.pruning.importance import CRITERIA
from compress.quantization.clips import clip_weight
from compress.quantization.formats import WEIGHTS
from compress.quantization.numerics import Calibration, LayerFormat, Numerics, QuantRule
from compress.report.csv import csv_text
from compress.report.page.page import page
from compress.report.page.sections import TARGET_SECTIONS, Section
from compress.report.page.target import target_report
from compress.report.table import columns
from compress.stage import formats_of
from compress.stages import PruneStage
from compress.tasks import TaskConfig, make_task
from compress.testing.nets import NETS
from compress.testing.stage_contract import CHECKS, bench_candidate, bench_context

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
HEAD, *SECTIONS = re.split(r"^## ", PAGE, flags=re.M)
TITLES = [section.splitlines()[0] for section in SECTIONS]
CODE = [re.findall(r"```python\n(.*?)```", section, re.S) for section in SECTIONS]
ROWS = re.findall(r"^\| `([\w/.]+)` \| ([^|]+) \| ", PAGE, re.M)
PLAIN = {"activations": "float32", "calibration": Calibration()}


@pytest.fixture
def example(monkeypatch):
    """Runs the example of a change as the module ``mine``."""

    def run(number):
        [code] = CODE[number - 1]
        module = types.ModuleType("mine")
        monkeypatch.setitem(sys.modules, "mine", module)
        exec(compile(code, "extending.md", "exec", dont_inherit=True), vars(module))
        return module

    return run


def own_context(candidate, folder):
    return replace(bench_context(candidate, folder), references=CodeReferences.of("mine"))


def lowered(module, inputs, path, weights):
    """A file whose layers have weights of a format that pydantic has not been told of."""
    rule = QuantRule(format=LayerFormat.model_construct(weights=weights, **PLAIN))
    candidate = replace(Candidate.of(module.eval(), inputs[:2]), numerics=Numerics((rule,)))
    return lower(candidate, Lowering(), calibration=[], check=inputs, path=path)


def inputs_of(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# -- the page ---------------------------------------------------------------------------------


def test_there_are_ten_changes_each_with_a_row_a_place_and_a_short_example():
    assert [title.split(".")[0] for title in TITLES] == [str(number) for number in range(1, 11)]
    linked = re.findall(r"^\| \[(.+?)\]\(#([\w-]+)\)", HEAD, re.M)
    assert [name.split(".")[0] for name, _ in linked] == [str(n) for n in range(1, 11)]
    anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in TITLES]
    assert [anchor for _, anchor in linked] == anchors
    for section, blocks in zip(SECTIONS, CODE, strict=True):
        assert re.search(r"^\| `", section, re.M), section[:40]
        assert len(blocks) == 1, section[:40]
        assert len(blocks[0].splitlines()) <= 30, section[:40]
        assert max(map(len, blocks[0].splitlines())) <= 100, section[:40]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:compress|tests)/[\w/.]*)`", PAGE))))
def test_every_path_exists(path):
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


@pytest.mark.parametrize(("path", "names"), ROWS, ids=[path for path, _ in ROWS])
def test_every_name_stands_in_the_file_to_open(path, names):
    tree = ast.parse((ROOT / path).read_text())
    assigned = {name.id for top in tree.body for name in targets_of(top)}
    defined = {top.name for top in tree.body if isinstance(top, ast.FunctionDef | ast.ClassDef)}
    found = re.findall(r"`(\w+)`", names)
    assert found
    assert set(found) <= assigned | defined


def targets_of(statement):
    if isinstance(statement, ast.Assign):
        return [one for one in statement.targets if isinstance(one, ast.Name)]
    return [statement.target] if isinstance(statement, ast.AnnAssign) else []


def test_names_in_prose_are_those_of_the_package_and_its_tests():
    files = [*(ROOT / "compress").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    known = {w for p in files if p != Path(__file__) for w in re.findall(r"\w+", p.read_text())}
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.S)
    assert set(re.findall(r"`([A-Za-z_]\w+)`", prose)) <= known


# -- the examples, used for real --------------------------------------------------------------


def test_the_loss_trains_as_one_of_ones_own(example, tmp_path):
    mine = example(1)
    text = "stages: [{kind: distill, epochs: 1, losses: [{kind: 'mine:SmoothL1Loss', beta: 0.5}]}]"
    [stage] = Recipe.loads(text, imports=["mine"]).stages
    start = bench_candidate()
    context = own_context(start, tmp_path)
    context = replace(context, teacher=lambda inputs: torch.ones(len(inputs), 4))
    trained = stage.run(start, context)
    assert trained.fingerprint != start.fingerprint
    a, b = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.25, 0.0]])
    assert mine.smooth_l1(a, b, 0.5) == pytest.approx((0.25**2 + 1.75) / 2)


def test_the_format_rounds_and_can_be_lowered(example, monkeypatch, tmp_path):
    form = example(2).FORMAT
    monkeypatch.setitem(WEIGHTS, form.name, form.weights)
    weight = inputs_of(6, 9).requires_grad_()
    rounded = form.weights.fake_quantize(weight, axis=0)
    error = (rounded / weight - 1).detach().abs()
    assert 0.06 < float(error.max()) <= 0.125  # of two bits of mantissa
    rounded.sum().backward()
    assert torch.equal(weight.grad, torch.ones(6, 9))
    made = lowered(nn.Linear(9, 6), inputs_of(32, 9), tmp_path / "m.onnx", form.name)
    assert made.census.weight_bytes["float8e5m2"] == 6 * 9
    assert made.parity.r_squared > 0.999999


def test_the_runtime_opens_and_runs_a_file(example, monkeypatch, tmp_path):
    runtime = example(3).Reference()
    monkeypatch.setitem(RUNTIMES, runtime.name, runtime)
    path, weight = str(tmp_path / "m.onnx"), np.arange(12, dtype=np.float32).reshape(4, 3)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    x = np.ones((2, 4), np.float32)
    job = {"runtime": "reference", "model": path}
    [y] = open_model(job).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ weight)
    assert inspect(job) == inspect({"model": path})
    assert runtime.facts(job)["reference"] == onnx.__version__
    assert [found.state for found in runtime.findings()] == ["ok"]


def test_the_criterion_ranks_and_cuts(example, monkeypatch, tmp_path):
    mine = example(4)
    start = bench_candidate()
    text = "stages: [{kind: prune, ratio: 0.5, round_to: 4, importance: 'mine:geometric_median'}]"
    [stage] = Recipe.loads(text, imports=["mine"]).stages
    own = stage.run(start, own_context(start, tmp_path / "own"))
    known = {**CRITERIA, "geometric-median": mine.CRITERION}
    monkeypatch.setattr("compress.pruning.importance_settings.CRITERIA", known)
    built_in = PruneStage(ratio=0.5, round_to=4, importance="geometric-median")
    cut = built_in.run(start, bench_context(start, tmp_path / "built-in"))
    assert cut.fingerprint == own.fingerprint != start.fingerprint


def test_the_clip_has_the_gradient_of_what_is_clipped(example):
    learned, fixed = example(5).FORMAT.weights, WEIGHTS["int4"]
    weight = inputs_of(5, 20).requires_grad_()
    clip = torch.full((5,), 0.5, requires_grad=True)
    slopes = inputs_of(5, 20).flip(1)
    rounded = learned.fake_quantize_learned(weight, clip, axis=0)
    clipped = clip_weight(weight.detach(), (0.5,) * 5, 0)
    assert torch.equal(rounded, fixed.fake_quantize(clipped, axis=0))
    (rounded * slopes).sum().backward()
    inside = clipped == weight
    assert torch.equal(weight.grad, slopes * inside)
    beyond = (slopes * weight.detach().sign() * ~inside).sum(1)
    assert torch.allclose(clip.grad, beyond * weight.detach().abs().amax(1), atol=1e-6)


def test_a_training_learns_the_clip_and_the_file_has_it(example, monkeypatch, tmp_path):
    monkeypatch.setitem(WEIGHTS, "int4", example(5).FORMAT.weights)
    start = bench_candidate()
    context = bench_context(start, tmp_path / "work")
    declared = QuantizeStage(weights="int4", activations="float32").run(start, context)
    trained = TrainStage(epochs=1, batch_size=64).run(declared, context)
    clips = [format.clip for format in formats_of(trained).values()]
    assert all(clips)
    assert {round(one, 4) for clip in clips for one in clip} != {0.9}
    path, inputs = tmp_path / "m.onnx", trained.example
    made = lower(trained, Lowering(), calibration=[], check=inputs, path=path)
    assert made.parity.r_squared > 0.9999


def test_the_stage_keeps_what_the_target_runs_fastest(example, tmp_path):
    mine = example(6)
    case = NETS["mlp"]
    seconds = {
        "small": lambda path: 1e-9 * path.stat().st_size,
        "large": lambda path: 1e-3 / path.stat().st_size,
    }
    kept = {}
    for name, rule in seconds.items():
        record = Recipe(stages=[mine.FastestStage(activations=("int8", "float32"))]).run(
            Candidate.of(case.build(), case.example()),
            case.make_task(),
            targets=[ReplayTarget(latency_s=rule)],
            workdir=tmp_path / name,
            report=False,
        )
        [kept[name]] = [note for note in record.rows[1].notes if note.endswith("fastest")]
    assert len(set(kept.values())) == 2


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_the_stage_keeps_the_contract(check, example, tmp_path):
    check(example(6).FastestStage(), tmp_path)


def test_the_stage_says_where_it_is_so_already(example, tmp_path):
    stage, start = example(6).FastestStage(activations=("dynamic",)), bench_candidate()
    context = bench_context(start, tmp_path)
    with pytest.raises(AlreadySo, match=r"^fastest: activations dynamic are the fastest\.$"):
        stage.run(stage.run(start, context), context)


@pytest.mark.parametrize("name", ["chain", "adversarial", "two_targets"])
def test_the_plot_stands_on_the_page(name, example, request):
    mine, record = example(7), request.getfixturevalue(name)
    section = Section("panels.html", mine.sizes_data)
    shown = page(record, (*TARGET_SECTIONS, section))
    drawn = [mine.sizes_data(target_report(record, target, 0)) for target in record.targets]
    assert shown.count("<h3>Files</h3>") == len(drawn)
    for figure in drawn:
        [panel] = figure.panels
        assert panel.drawing.count("<rect") == len(figure.table.lines) == len(record.rows)
        assert panel.drawing in shown
    assert "<script>alert" not in shown
    without = re.sub(r"<h3>Files</h3>.*?(?=\s*</section>)", "", shown, flags=re.DOTALL)
    assert "".join(without.split()) == "".join(page(record).split())


def test_the_plot_is_left_out_where_nothing_was_measured(example, chain):
    target = target_report(chain, "laptop", 0)
    for row in chain.rows:
        row.measurements = []
    assert example(7).sizes_data(target) is None


def test_the_data_set_is_a_task_that_a_recipe_trains_on(example, tmp_path):
    task = example(8).make_task()
    assert [len(split) for split in (task.train, task.validation, task.test)] == [349, 80, 140]
    text = "task: {name: 'mine:make_task', standardize: false, limit: 64}\nmodel: {arch: mlp}\n"
    text += "stages: [{kind: train, epochs: 1}]"
    recipe = Recipe.loads(text, imports=["mine"])
    task = recipe.make_task()
    assert float(task.train.__getitems__([0])[0].max()) > 100
    candidate = recipe.make_candidate(task)
    trained = recipe.stages[0].run(
        candidate, replace(bench_context(candidate, tmp_path), task=task)
    )
    assert trained.fingerprint != candidate.fingerprint


def test_the_built_in_form_of_the_data_set(example, monkeypatch):
    example(8)
    monkeypatch.setattr("compress.tasks.TASKS", {"breast-cancer": "mine:make_task"})
    task = make_task(TaskConfig(name="breast-cancer"))
    assert (task.name, task.classes) == ("breast-cancer", ("malignant", "benign"))


def test_the_remote_kind_reads_its_block_and_its_spelling(example, monkeypatch):
    mine = example(9)
    made = mine.BoardSettings.model_validate({"kind": "board", "number": 7, "threads": 2}).target()
    assert isinstance(made, Target)
    assert made == mine.BoardTarget(number=7, threads=2)
    shell = made.shell()
    assert isinstance(shell, SshShell)
    assert shell.where == "ssh:root@gateway.lab"
    assert mine.BoardSettings.spelling() == "board:NUMBER"
    monkeypatch.setattr(targets, "KINDS", (*targets.KINDS, mine.BoardSettings))
    none = dict.fromkeys(["runtime", "provider", "folder", "ssh_config"])
    given = argparse.Namespace(target="board:7", threads=1, batch=4, python="python3.11", **none)
    assert targets.target_of(given) == mine.BoardTarget(number=7, batch=4, python="python3.11")


def test_the_quantity_is_read_from_answers_and_has_its_cells(example, monkeypatch, chain):
    load = example(10).LOAD
    told = {"time": [{"create_ns": ms * 10**6} for ms in (4, 5, 9)], "memory": []}
    found = declared_quantities(told, [load])["load_s"]
    assert (found.value, found.samples) == (5e-3, 3)
    monkeypatch.setattr(quantities, "QUANTITIES", (*quantities.QUANTITIES, load))
    chain.rows[1].measurements[0].quantities["load_s"] = found
    [column] = [one for one in columns(chain, "laptop") if one.heading == "load"]
    assert [cell for cell in column.cells if cell != "-"] == ["5.00"]
    assert csv_text([("run", chain)]).splitlines()[0].endswith("load_s,load_low_s,load_high_s")
