"""``export``: a row as a folder of the hub's form, whole or not at all."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from compress import Recipe, ReplayTarget
from compress.cli import main
from compress.models.huggingface import build_hub_model, load_folder, read_architecture
from compress.testing.tiny_bert import write_lines, write_model

pytest.importorskip("transformers")

DISTILL = "{kind: distill, student: {layers: [0, 2]}, epochs: 1, losses: [{kind: logits-mse}]}"
STAGES = (
    DISTILL,
    "{kind: quantize, weights: int8, activations: dynamic}",
    "{kind: prune, granularity: heads, ratio: 0.5}",
    "{kind: prune, ratio: 0.25, ignore: ['*.query', '*.key', '*.value'], round_to: 4}",
    "{kind: quantize}",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with the tiny BERT, and a run that cuts, quantizes and prunes it."""
    root = tmp_path_factory.mktemp("export")
    write_model(root / "bert")
    (root / "bert" / "tokenizer_config.json").write_text('{"model_max_length": 24}')
    (root / "bert" / "modeling_own.py").write_text("raise SystemExit\n")
    write_lines(root / "lines.txt", 120)
    recipe = Recipe.loads(
        f"name: tiny\ntask: {{name: text, path: {root}/lines.txt, tokenizer: {root}/bert, "
        f"max_length: 12}}\nmodel: {{hf: {root}/bert}}\nstages: [{', '.join(STAGES)}]\n"
    )
    task = recipe.make_task()
    candidate = recipe.make_candidate(task)
    recipe.run(
        candidate,
        task,
        workdir=root / "run",
        targets=[ReplayTarget()],
        mode="quick",
        cache="none",
        report=False,
    )
    return root


@pytest.fixture(scope="module")
def exported(finished):
    """Row 4 and row 0, written once."""
    run = str(finished / "run")
    assert main(["export", run, "--row", "4", "--format", "hf", "-o", str(finished / "four")]) == 0
    assert main(["export", run, "--row", "0", "-o", str(finished / "zero")]) == 0
    return finished


def say(capsys, *arguments):
    code = main(["export", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def axes(value):
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


@pytest.mark.exhaustive
def test_the_file_has_the_names_and_axes_that_optimum_looks_for(exported):
    graph = onnx.load(exported / "four" / "model.onnx").graph
    names = ["input_ids", "attention_mask", "token_type_ids"]
    assert [value.name for value in graph.input] == names
    assert {tuple(axes(value)) for value in graph.input} == {("batch_size", "sequence_length")}
    assert [value.name for value in graph.output] == ["last_hidden_state"]
    assert axes(graph.output[0]) == ["batch_size", "sequence_length", 32]


def test_the_configuration_is_that_of_what_is_left(exported):
    config = json.loads((exported / "four" / "config.json").read_text())
    assert config["architectures"] == ["BertModel"]
    assert config["num_hidden_layers"] == 2
    assert config["intermediate_size"] == 36
    whole = json.loads((exported / "zero" / "config.json").read_text())
    assert (whole["num_hidden_layers"], whole["intermediate_size"]) == (3, 48)


def test_tokenizer_and_pooling_come_along_and_code_does_not(exported):
    source, folder = exported / "bert", exported / "four"
    copied = ["tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling/config.json"]
    for name in copied:
        assert (folder / name).read_bytes() == (source / name).read_bytes(), name
    assert not list(folder.rglob("*.py"))
    assert not list(folder.rglob("*.safetensors"))


def test_the_folder_says_which_row_it_is_and_that_it_was_not_timed(exported):
    facts = json.loads((exported / "four" / "compresskit.json").read_text())
    assert (facts["recipe"], facts["row"], facts["stage"]) == ("tiny", 4, "prune-2")
    assert facts["timed"] == "stages/04-prune-2/model.onnx"
    assert set(facts["attention_heads"].values()) == {2}
    sizes = [(p["batch_size"], p["sequence_length"]) for p in facts["parity"]]
    assert sizes == [(5, 12), (5, 6), (1, 12), (1, 6)]
    readme = (exported / "four" / "README.md").read_text()
    assert "It was not timed" in readme
    assert "ORTModelForFeatureExtraction.from_pretrained" in readme
    assert "the mean over tokens that are no padding, scaled to length 1" in readme


@pytest.mark.parametrize(("batch", "length"), [(3, 7), (1, 24), (8, 1)])
def test_it_gives_what_transformers_makes_of_the_folder_at_other_sizes(exported, batch, length):
    encoder = build_hub_model(read_architecture(exported / "bert", pooling="none").options)
    load_folder(encoder, exported / "bert")
    ids = torch.randint(4, 30, (batch, length), generator=torch.Generator().manual_seed(0))
    mask, kinds = torch.ones_like(ids), torch.zeros_like(ids)
    mask[0, length // 2 + 1 :], kinds[:, length // 2 :] = 0, 1
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
    with torch.no_grad():
        expected = encoder.model(**feeds).last_hidden_state.numpy()
    session = ort.InferenceSession(exported / "zero" / "model.onnx")
    (found,) = session.run(None, {name: tensor.numpy() for name, tensor in feeds.items()})
    assert np.abs(found - expected).max() < 1e-4


def test_what_is_printed(exported, capsys):
    code, out, _ = say(capsys, exported / "run", "--row", 0, "-o", exported / "zero")
    assert code == 0  # an export in the place of an earlier one
    assert "row 0 (input)" in out
    assert "as its module at 5x12, 5x6, 1x12, 1x6: largest error" in out
    assert "with open batch and length" in out
    assert "this file was not timed: the record is about stages/00-input/model.onnx" in out
    assert f"ORTModelForFeatureExtraction.from_pretrained('{exported / 'zero'}')" in out
    assert [path.name for path in exported.glob("compresskit-*")] == []


def refused(capsys, *arguments, code=2):
    got, out, err = say(capsys, *arguments)
    assert got == code, err
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_row_with_fixed_ranges_is_refused_and_nothing_is_left(finished, tmp_path, capsys):
    said = refused(capsys, finished / "run", "--row", 5, "-o", tmp_path / "out", code=1)
    assert "activations of fixed ranges, whose form in a file has a fixed batch and length" in said
    assert list(tmp_path.iterdir()) == []


def test_other_rows_formats_and_runs_are_refused(finished, tmp_path, capsys):
    out, run = tmp_path / "out", finished / "run"
    said = refused(capsys, run, "--row", 6, "-o", out)
    assert "--row 6: the run 'tiny' has rows 0 to 5." in said
    said = refused(capsys, run, "--row", -1, "-o", out)
    assert "--row -1: the run 'tiny' has rows 0 to 5." in said
    said = refused(capsys, run, "--row", 0, "--format", "gguf", "-o", out)
    assert "--format gguf: there is only hf." in said
    said = refused(capsys, tmp_path, "--row", 0, "-o", out)
    assert "there is no record here; give a folder that `compresskit run` wrote." in said


def test_what_is_there_already_stays(finished, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    said = refused(capsys, finished / "run", "--row", 0, "-o", tmp_path)
    assert (
        "it holds something that no export of compresskit wrote (such as notes.txt), and it stays "
        "as it is; give a new or an empty folder." in said
    )
    said = refused(capsys, finished / "run", "--row", 0, "-o", tmp_path / "notes.txt")
    assert "notes.txt: this is a file; give a folder." in said
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    said = refused(capsys, finished / "run", "--row", 0, "-o", tmp_path / "link")
    assert "link: this is a link; give the folder itself." in said


def test_an_export_with_a_file_of_someone_else_stays(exported, tmp_path, capsys):
    folder = tmp_path / "folder"
    shutil.copytree(exported / "four", folder)
    (folder / "notes.txt").write_text("mine")
    said = refused(capsys, exported / "run", "--row", 0, "-o", folder)
    assert "such as notes.txt" in said
    (folder / "notes.txt").unlink()
    (folder / "compresskit.json").write_text("{}")
    assert "such as 1_Pooling" in refused(capsys, exported / "run", "--row", 0, "-o", folder)


def test_a_candidate_that_was_changed_is_refused(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished / "run", run)
    shutil.copytree(
        run / "stages" / "00-input" / "candidate",
        run / "stages" / "01-distill" / "candidate",
        dirs_exist_ok=True,
    )
    said = refused(capsys, run, "--row", 1, "-o", tmp_path / "out")
    assert "candidate: it is not the candidate that the record describes; run the recipe" in said


def test_a_model_from_no_folder_is_refused(tmp_path, capsys):
    recipe = Recipe.loads(
        "task: digits\nmodel: {arch: mlp, in_features: 64, width: 16}\nstages: [{kind: quantize}]"
    )
    task = recipe.make_task()
    candidate = recipe.make_candidate(task)
    recipe.run(
        candidate,
        task,
        workdir=tmp_path / "run",
        targets=[ReplayTarget()],
        mode="quick",
        cache="none",
        report=False,
    )
    said = refused(capsys, tmp_path / "run", "--row", 0, "-o", tmp_path / "out")
    assert "row 0 (input): its model came from no Hugging Face folder, whose configuration" in said
