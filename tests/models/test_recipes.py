"""Recipes on a folder: students, teachers, and every stage on an encoder with its mask."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from compress import DistillStage, LocalTarget, PruneStage, QuantizeStage, Recipe, ReplayTarget
from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.cli import main
from compress.distillation.context import DistillationContext
from compress.distillation.loss_function import RequiredOutputs, student_forward, teacher_forward
from compress.distillation.teachers import frozen_teacher
from compress.errors import RecipeError, StageError
from compress.models.build import build_module
from compress.modules.inputs import forward
from compress.quantization.fakequant import declared_formats
from compress.running.split_arrays import SplitArrays
from compress.stage import Context
from compress.testing.tiny_hub import write_family
from compress.training.data import head

LOSSES = (
    "losses: [{kind: logits-mse, weight: 100}, {kind: similarity, weight: 100}, "
    "{kind: hidden, student: model.encoder.layer.*, teacher: model.encoder.layer.*}]"
)
DISTILL = f"kind: distill, student: {{layers: [0, 2]}}, epochs: 2, views: 1, {LOSSES}"
DYNAMIC = "kind: quantize, weights: int8, activations: dynamic"
HEADS = "kind: prune, granularity: heads, ratio: 0.5"
UNITS = "kind: prune, ratio: 0.25, ignore: ['*.query', '*.key', '*.value'], round_to: 4"


def context_for(start, tmp_path):
    candidate, task = start
    return Context(
        task=task,
        teacher=frozen_teacher(candidate.fork().module),
        origin=candidate,
        seed=0,
        workdir=tmp_path,
        build=lambda architecture: build_module(architecture, None),
    )


def lowered(candidate, task, path):
    check = head(task.validation, 12).inputs
    calibration = [head(task.train, 32).inputs]
    return lower(
        candidate, Lowering(avoid_saturation=True), calibration=calibration, check=check, path=path
    )


def test_a_whole_recipe_runs_and_goes_on_where_it_stopped(recipe_of, tmp_path):
    recipe = recipe_of(DISTILL, DYNAMIC, HEADS, UNITS)
    task = recipe.make_task()
    start = recipe.make_candidate(task)

    def run():
        return recipe.run(
            start, task, workdir=tmp_path / "run", targets=[ReplayTarget()], report=False
        )

    record = run()
    assert record.task.metric == "similarity_spearman"
    assert [row.kind for row in record.rows] == ["input", "distill", "quantize", "prune", "prune"]
    scores = [row.measurements[0].accuracy.value for row in record.rows]
    assert scores[0] == 1.0
    assert all(-1 <= score <= 1 for score in scores)
    assert [row.parameters for row in record.rows] == sorted(
        (row.parameters for row in record.rows), reverse=True
    )
    assert all(row.cached for row in run().rows[1:])


def test_a_student_of_layers_starts_as_these_layers(start, tmp_path):
    candidate, _ = start
    stage = DistillStage(student={"layers": [0, 2]}, losses=[{"kind": "logits-mse"}])
    student = stage.rehearse(candidate, context_for(start, tmp_path))
    before, after = candidate.module.model.encoder, student.module.model.encoder
    assert len(before.layer) == 3
    assert len(after.layer) == 2
    assert torch.equal(after.layer[1].output.dense.weight, before.layer[2].output.dense.weight)
    assert student.architecture.blocks == (0, 2)
    again = DistillStage(student={"layers": [1]}, losses=[{"kind": "logits-mse"}])
    assert again.rehearse(student, context_for(start, tmp_path)).architecture.blocks == (2,)


@pytest.mark.parametrize("layers", [[0, 3], [2, 0], [1, 1]])
def test_layers_that_are_not_there_are_refused(layers, start, tmp_path):
    stage = DistillStage(student={"layers": layers})
    with pytest.raises(StageError, match=r"has 3 blocks, so layers are some of 0 to 2, each once"):
        stage.run(start[0], context_for(start, tmp_path))


def test_a_student_and_a_teacher_may_be_folders(start, bert, tmp_path):
    candidate, _ = start
    smaller = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 24}
    stage = DistillStage(
        student={"hf": str(bert), "config": smaller, "pretrained": False},
        teacher={"hf": str(bert)},
        losses=[{"kind": "rkd-distance"}],
    )
    student = stage.run(candidate, context_for(start, tmp_path))
    assert forward(student.module, candidate.example).shape[1] == 16


@pytest.mark.parametrize("who", ["model", "student", "teacher"])
def test_another_tokenizer_is_refused(who, start, bert, other_words, recipe_of, tmp_path):
    recipe = recipe_of("kind: quantize")
    task = recipe.make_task()
    (bert / "tokenizer.json").write_bytes((other_words / "tokenizer.json").read_bytes())
    said = r"tiny-bert: its tokenizer is not that of task 'text', so that ids would mean other"
    if who == "model":
        with pytest.raises(RecipeError, match=said):
            recipe.make_candidate(task)
        return
    stage = DistillStage(**{who: {"hf": str(bert)}}, losses=[{"kind": "logits-mse"}])
    with pytest.raises(RecipeError, match=said):
        stage.run(start[0], context_for(start, tmp_path))


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("model: {hf: x, arch: mlp}", r"model: the architecture 'mlp' has no option 'hf'"),
        ("model: {hf: x, task: translation}", r"model\.task: .*feature-extraction"),
        ("model: {hf: x, pretraind: true}", r"model\.pretraind: unknown key"),
        ("model: {weights: x}", r"model: the key 'arch' is missing"),
        ("model: {hf: x, config: 3}", r"model\.config: should be a valid dictionary; got 3"),
    ],
)
def test_blocks_that_are_refused(block, said):
    text = f"task: digits\n{block}\nstages: [{{kind: quantize}}]\n"
    with pytest.raises(RecipeError, match=said):
        Recipe.loads(text)


def test_a_package_that_is_not_there_is_one_sentence(recipe_of):
    recipe = Recipe.loads(
        "task: digits\nmodel: {hf: 'package:no_such_thing/model'}\nstages: [{kind: quantize}]\n"
    )
    with pytest.raises(RecipeError, match=r"there is no package 'no_such_thing' here; install"):
        recipe.make_candidate(recipe_of("kind: quantize").make_task())


def test_a_folder_inside_a_package_is_found_without_importing_it(bert, monkeypatch):
    (bert.parent / "carrier").mkdir()
    (bert.parent / "carrier" / "__init__.py").write_text("raise AssertionError('imported')")
    bert.rename(bert.parent / "carrier" / "tiny-bert")
    monkeypatch.syspath_prepend(bert.parent)
    settings = Recipe.loads(
        "task: digits\nmodel: {hf: 'package:carrier/tiny-bert'}\nstages: [{kind: quantize}]\n"
    ).model
    assert settings.architecture.options["config"]["model_type"] == "bert"


def test_the_float_file_takes_ids_and_mask_and_agrees(start, tmp_path):
    candidate, task = start
    artifact = lowered(candidate, task, tmp_path / "model.onnx")
    assert artifact.parity.max_error < 1e-4
    test = SplitArrays.of(task.test).inputs
    assert set(test) == {"input_ids", "attention_mask"}
    outputs = LocalTarget().predict(artifact.path, test)[0]
    with torch.no_grad():
        expected = forward(candidate.module, head(task.test, len(task.test)).inputs).numpy()
    assert np.allclose(outputs, expected, atol=1e-4)


def test_int8_holds_tables_and_products_in_bytes(start, tmp_path):
    candidate, task = start
    stage = QuantizeStage(weights="int8", activations="dynamic")
    small = stage.run(candidate, context_for(start, tmp_path))
    formats = declared_formats(small.module, small.numerics, small.example)
    assert formats["model.embeddings.word_embeddings"].activations == "float32"
    assert formats["model.encoder.layer.0.intermediate.dense"].activations == "dynamic"
    artifact = lowered(small, task, tmp_path / "small.onnx")
    assert artifact.parity.sqnr_db > 30
    assert not artifact.warnings
    arrays = [numpy_helper.to_array(t) for t in onnx.load(artifact.path).graph.initializer]
    words = candidate.module.model.embeddings.word_embeddings.weight.shape
    assert [a.dtype for a in arrays if a.shape == tuple(words)] == [np.int8]
    # Positions are constants; of the layers only biases and norms are left in float.
    floats = [a.shape for a in arrays if a.dtype == np.float32 and sum(n > 1 for n in a.shape) > 1]
    assert set(floats) == {(1, 12, 32)}
    assert artifact.census.int8_mac_fraction > 0.7


@pytest.mark.parametrize("weights", ["int8", "int4", "float16"])
def test_tables_are_looked_up_as_they_are_simulated(weights, start, tmp_path):
    candidate, task = start
    stage = QuantizeStage(
        weights=weights,
        activations="float16" if weights == "float16" else "float32",
        select=["model.embeddings"],
    )
    stored = stage.run(candidate, context_for(start, tmp_path))
    artifact = lowered(stored, task, tmp_path / "model.onnx")
    assert artifact.parity.sqnr_db is None or artifact.parity.sqnr_db > 55


def test_a_static_format_of_everything_is_weights_alone_for_tables(start, tmp_path):
    candidate, task = start
    static = QuantizeStage().run(candidate, context_for(start, tmp_path))
    assert lowered(static, task, tmp_path / "model.onnx").parity.sqnr_db > 10


def test_whole_heads_are_cut(start, tmp_path):
    candidate, task = start
    stage = PruneStage(granularity="heads", ratio=0.5)
    pruned = stage.run(candidate, context_for(start, tmp_path))
    for layer in pruned.module.model.encoder.layer:
        attention = layer.attention.self
        assert (attention.num_attention_heads, attention.attention_head_size) == (2, 8)
        assert attention.query.out_features == attention.value.out_features == 16
        assert layer.attention.output.dense.in_features == 16
        assert layer.intermediate.dense.out_features == 48
    pruned.save(tmp_path / "saved")
    loaded = type(pruned).load(tmp_path / "saved", pruned.example, lambda a: build_module(a, None))
    assert loaded.fingerprint == pruned.fingerprint
    assert lowered(pruned, task, tmp_path / "model.onnx").parity.max_error < 1e-4


def test_the_heads_that_say_least_go(start, tmp_path):
    candidate, _ = start
    quiet = candidate.fork()
    for layer in quiet.module.model.encoder.layer:
        with torch.no_grad():
            for name in ("query", "key", "value"):
                getattr(layer.attention.self, name).weight[8:24] *= 1e-3
                getattr(layer.attention.self, name).bias[8:24] *= 1e-3
            layer.attention.output.dense.weight[:, 8:24] *= 1e-3
    stage = PruneStage(granularity="heads", ratio=0.5)
    pruned = stage.run(quiet, context_for(start, tmp_path))
    with torch.no_grad():
        before = forward(quiet.module, quiet.example).numpy()
        after = forward(pruned.module, quiet.example).numpy()
    assert np.allclose(before, after, atol=1e-3)


def test_feed_forward_units_are_cut_and_heads_shrink_together(start, tmp_path):
    candidate, _ = start
    context = context_for(start, tmp_path)
    kept = PruneStage(ratio=0.25, round_to=4, ignore=["*.query", "*.key", "*.value"])
    units = kept.run(candidate, context).module.model.encoder.layer[0]
    assert units.intermediate.dense.out_features == 36
    assert units.attention.self.query.out_features == 32
    everything = PruneStage(ratio=0.25, round_to=4).run(candidate, context)
    attention = everything.module.model.encoder.layer[0].attention.self
    assert (attention.num_attention_heads, attention.attention_head_size) == (4, 6)
    everything.validate()


def test_distillation_brings_the_student_nearer_to_its_teacher(start, tmp_path):
    candidate, task = start
    context = context_for(start, tmp_path)
    settings = {
        "student": {"layers": [0, 2]},
        "losses": [{"kind": "logits-mse", "weight": 100.0}],
        "batch_size": 16,
        "learning_rate": 2e-3,
    }
    texts = head(task.train, 96).inputs

    @torch.no_grad()
    def distance(student):
        return float((forward(student.module, texts) - forward(candidate.module, texts)).norm())

    untrained = DistillStage(**settings).rehearse(candidate, context)
    trained = DistillStage(**settings, epochs=6, views=1).run(candidate, context)
    assert distance(trained) < 0.8 * distance(untrained)


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("hidden", "model.encoder.layer.*"),
        ("attention-maps", "model.encoder.layer.*.attention.self"),
    ],
)
def test_padding_says_nothing_to_losses_of_layers(kind, layers, start, tmp_path):
    candidate, task = start
    context = context_for(start, tmp_path)
    stage = DistillStage(
        student={"layers": [0, 2]}, losses=[{"kind": kind, "student": layers, "teacher": layers}]
    )
    student = stage.rehearse(candidate, context).module
    loss = stage.losses[0].loss_function(DistillationContext(student, context.teacher, context))
    texts = head(task.train, 96)
    short = texts.inputs["attention_mask"].sum(1) <= 9
    assert bool(short.any())

    def value(length):
        inputs = {name: ids[short, :length] for name, ids in texts.inputs.items()}
        batch = replace(texts, inputs=inputs)
        ours = student_forward(student, student, batch, loss.student_layers)
        theirs = teacher_forward(context.teacher, batch, RequiredOutputs.of([loss]))
        return float(loss.compute(ours, theirs, None).detach())

    assert value(12) > 0
    assert value(9) == pytest.approx(value(12), rel=1e-4)


@pytest.mark.exhaustive  # its family goes through every stage in test_hub_families.py
def test_the_recipe_of_a_vision_transformer_runs_and_its_last_row_is_exported(tmp_path):
    write_family(tmp_path / "tiny-vit", "vit")
    short = [f"stages.{place}.epochs=2" for place in (0, 1)]
    sizes = {"image_size": 8, "patch_size": 4, "hidden_size": 16, "intermediate_size": 24}
    recipe = Recipe.load(
        Path(__file__).parents[2] / "recipes" / "vit.yaml",
        settings=(
            *("task.name=digits", "task.limit=64", f"model.hf={tmp_path / 'tiny-vit'}"),
            *(f"model.config.{key}={value}" for key, value in sizes.items()),
            *(*short, "stages.2.finetune.epochs=1"),
        ),
    )
    task = recipe.make_task()
    start = recipe.make_candidate(task)
    assert forward(start.module, start.example).shape[1:] == (10,)
    run = tmp_path / "run"
    record = recipe.run(start, task, workdir=run, targets=[ReplayTarget()], report=False)
    assert [row.kind for row in record.rows] == ["input", "train", "distill", "prune", "quantize"]
    out = tmp_path / "out"
    assert main(["export", str(run), "--row", "4", "--format", "hf", "--out", str(out)]) == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["num_hidden_layers"], config["num_labels"]) == (3, 10)
    assert set(json.loads((out / "compresskit.json").read_text())["attention_heads"].values()) == {
        3
    }
