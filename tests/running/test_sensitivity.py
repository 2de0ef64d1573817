"""Which layer hurts: each is changed by itself, and nothing of the model stays changed."""

import json

import pytest
import torch
import yaml

from compress import Candidate, PruneStage, QuantizeStage, Recipe, ReplayTarget
from compress.cli import main
from compress.errors import StageError
from compress.layer_facts import read_sensitivity
from compress.quantization.numerics import LayerFormat
from compress.running.sensitivity import sensitivity_of
from compress.testing.nets import NETS
from tests.covering import kept_of

INT8 = {"int8": LayerFormat(weights="int8", activations="int8")}
INT4 = {"int4": LayerFormat(weights="int4")}


def job_of(net, tmp_path, change=lambda module: None):
    case = NETS[net]
    module = case.build()
    change(module)
    start = Candidate.of(module, case.example())
    recipe = Recipe(name="s", stages=(QuantizeStage(),))
    return recipe.job(start, case.make_task(), workdir=tmp_path, targets=[ReplayTarget()])


@pytest.mark.parametrize("net", kept_of(NETS, ("conv1d", "attention", "mobilenet-v3")))
def test_every_layer_of_every_net_has_numbers_and_stays_as_it_was(net, tmp_path):
    job = job_of(net, tmp_path)
    before = job.candidate.fingerprint
    told = []
    found = sensitivity_of(job, {**INT8, **INT4}, 24, lambda *one: told.append(one))
    assert job.candidate.fingerprint == before
    assert [one[2] for one in told] == [layer.layer for layer in found.layers]
    assert found.samples == min(24, len(job.task.validation))
    errors = [layer.formats["int4"].error for layer in found.layers]
    assert all(error > 0 for error in errors)
    # Four bits are coarser than eight; single layers may come out the other way by chance.
    assert sum(errors) > sum(layer.formats["int8"].error for layer in found.layers)
    assert any(layer.cut is not None for layer in found.layers)
    assert all(layer.cut.saved_bytes > 0 for layer in found.layers if layer.cut)


def test_the_layer_that_was_made_sensitive_comes_first(tmp_path):
    def widen(module):
        with torch.no_grad():
            module.layers[1].weight[:, 0] *= 300  # inputs of one channel decide the step of all

    found = sensitivity_of(job_of("mlp", tmp_path, widen), INT4, 64)
    worst = max(found.layers, key=lambda one: one.formats["int4"].error)
    assert worst.layer == "layers.1"


def test_the_channels_of_the_outputs_are_not_cut(tmp_path):
    found = sensitivity_of(job_of("mlp", tmp_path), INT8, 16)
    assert found.layers[-1].cut is None
    assert found.layers[0].cut is not None


def test_a_model_without_layers_has_nothing_to_look_at(tmp_path):
    case = NETS["mlp"]
    start = Candidate.of(torch.nn.Flatten(), case.example())
    recipe = Recipe(name="s", stages=(QuantizeStage(),))
    job = recipe.job(start, case.make_task(), workdir=tmp_path, targets=[ReplayTarget()])
    with pytest.raises(StageError, match="no layer whose weights could be quantized"):
        sensitivity_of(job, INT8, 8)


RECIPE = """
name: s
task: {name: digits, limit: 200}
model: {arch: mlp}
stages: [{kind: train, epochs: 1}, {kind: prune, ratio: 0.3}]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sensitivity")
    (folder / "r.yaml").write_text(RECIPE)
    recipe = Recipe.load(folder / "r.yaml")
    recipe.run(
        recipe.make_candidate(task := recipe.make_task()),
        task,
        workdir=folder / "run",
        targets=[ReplayTarget()],
        report=False,
    )
    return folder


def test_a_recipe_and_a_row_of_a_run_are_told_as_a_table_and_as_json(finished, capsys):
    assert main(["sensitivity", str(finished / "r.yaml"), "--samples", "16"]) == 0
    table = capsys.readouterr().out
    assert "int8/int8" in table
    assert "int4/float32" in table
    assert "a tenth cut" in table
    assert "16 validation samples, on which the model has accuracy" in table

    run = str(finished / "run")
    arguments = ["sensitivity", run, "--row", "2", "--format", "float8", "--json"]
    assert main([*arguments, "--samples", "16"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "done"
    assert found["metric"] == "accuracy"
    assert {"layer", "kind", "parameters", "formats", "cut"} == set(found["layers"][0])
    assert found["layers"][0]["formats"]["float8"]["error"] > 0


def test_choices_are_printed_to_paste_and_kept_in_the_folder_of_the_run(finished, capsys):
    run = finished / "run"
    arguments = ["sensitivity", str(run), "--row", "1", "--samples", "16", "--format", "int8/int8"]
    arguments += ["--budget", "artifact_kib=20", "--prune-budget", "macs=0.7"]
    assert main([*arguments, "-o", str(finished / "figures")]) == 0
    printed = capsys.readouterr().out
    stages = [yaml.safe_load(line)[0] for line in printed.splitlines() if line.startswith("- {")]
    assert [stage["kind"] for stage in stages] == ["quantize", "prune"]
    QuantizeStage.model_validate(stages[0])
    PruneStage.model_validate(stages[1])
    found = read_sensitivity(run)
    assert [choice.asked for choice in found.choices] == [
        "--budget artifact_kib=20",
        "--prune-budget macs=0.7",
    ]
    assert read_sensitivity(finished / "figures") == found
    assert str(run / "sensitivity.json") in printed
    assert main(["report", str(run)]) == 0
    assert "Which layer hurts" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["r.yaml", "--row", "1"], "--row 1: r.yaml is a recipe; rows are of a run."),
        (["run", "--row", "9"], "--row 9: the run 's' has rows 0 to 2."),
        (["r.yaml", "--format", "int3"], "--format int3: weights: "),
        (["r.yaml", "--format", "float32/int8"], "--format float32/int8: "),
        (["r.yaml", "--samples", "0"], "--samples 0: give 1 or more"),
        (["r.yaml", "--budget", "speed=2"], "'speed=2' is no limit; give artifact_kib=NUMBER or"),
        (["r.yaml", "--budget", "artifact_kib=-1"], "'artifact_kib=-1' is no limit"),
        (["r.yaml", "--prune-budget", "macs=0.5,parameters=2"], "give one of macs and parameters"),
        (["nothing.yaml"], "nothing.yaml: there is no such recipe file"),
        (["run", "--json", "--row", "9"], "--row 9: the run 's' has rows 0 to 2."),
    ],
)
def test_what_is_wrong_is_a_sentence(arguments, said, finished, capsys, monkeypatch):
    monkeypatch.chdir(finished)
    assert main(["sensitivity", *arguments]) in (1, 2)
    assert said in capsys.readouterr().err


def test_few_layers_that_make_most_of_the_error_are_named_to_paste():
    from compress.cli.layer_table import described
    from compress.layer_facts import Change, LayerSensitivity, Sensitivity

    layers = tuple(
        LayerSensitivity(
            f"l{n}", "Conv2d", 10, {"int8/int8": Change(1.0 if n == 4 else 0.01, 0, 30)}, None
        )
        for n in range(6)
    )
    lines = described(Sensitivity("accuracy", 0.9, True, 8, layers))
    assert lines[-1] == "quantize (int8/int8): exclude: [l4]"
    alike = tuple(
        LayerSensitivity(f"l{n}", "Conv2d", 10, {"int8/int8": Change(0.1, 0, 30)}, None)
        for n in range(6)
    )
    assert "Few layers" not in "\n".join(described(Sensitivity("accuracy", 0.9, True, 8, alike)))
