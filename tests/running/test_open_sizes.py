"""Runs on a target with open sizes: one file, timed at each size, and all of it in the record."""

import pytest

from compress import LocalTarget, Recipe
from compress.errors import LoweringError
from compress.record import Record
from compress.report.page.details import row_facts
from compress.testing.tiny_bert import write_lines, write_model

DYNAMIC = "{kind: quantize, weights: int8, activations: dynamic}"
STATIC = "{kind: quantize}"


def recipe_of(stage, target, task="digits", model="{arch: mlp}"):
    return Recipe.loads(
        f"name: r\ntask: {task}\nmodel: {model}\ntargets: [{{kind: local, {target}}}]\n"
        f"stages: [{stage}]\n"
    )


def run(recipe, folder):
    task = recipe.make_task()
    start = recipe.make_candidate(task)
    return recipe.run(start, task, workdir=folder, mode="quick", report=False)


def test_a_batch_is_open_and_timed_at_each_size(tmp_path):
    recipe = recipe_of(DYNAMIC, "batch: any, sizes: [2, 16]")
    record = run(recipe, tmp_path)
    assert record.status == "done"
    assert record.recipe["targets"][0]["batch"] == "any"
    for row in Record.load(tmp_path).rows:
        (measured,) = row.measurements
        assert measured.artifact.open == ["batch"]
        assert [(size.batch, size.length) for size in measured.sizes] == [(2, None), (16, None)]
        assert measured.sizes[0].latency == measured.latency
        assert measured.sizes[0].speedup == measured.speedup
        assert measured.sizes[1].latency.p50_s > 0
        name = f"{row.index:02d}-local"
        there = {path.name for path in (tmp_path / "measurements").glob(f"{name}*")}
        assert there == {f"{name}.jsonl", f"{name}-16.jsonl"}
    facts = dict(row_facts(record, record.rows[1], "local"))
    assert facts["At each size"].startswith("2 samples: p50 ")
    assert "; 16 samples: p50 " in facts["At each size"]
    # Other sizes are other measurements, and the same ones are not made again.
    again = run(recipe, tmp_path)
    assert again.rows[1].measurements == record.rows[1].measurements
    other = run(recipe_of(DYNAMIC, "batch: any, sizes: [2]"), tmp_path)
    assert [size.batch for size in other.rows[1].measurements[0].sizes] == [2]


@pytest.mark.exhaustive  # tests/backends/onnx/test_open_axes.py lowers such files and runs them
def test_a_length_is_open_and_timed_at_each_size(tmp_path):
    pytest.importorskip("transformers")
    write_model(tmp_path / "bert")
    write_lines(tmp_path / "lines.txt", 60)
    task = (
        f"{{name: text, path: {tmp_path / 'lines.txt'}, tokenizer: {tmp_path / 'bert'}, "
        "max_length: 12}"
    )
    model = f"{{hf: {tmp_path / 'bert'}}}"
    recipe = recipe_of(DYNAMIC, "length: any, sizes: [4, 12]", task, model)
    record = run(recipe, tmp_path / "run")
    (measured,) = record.rows[1].measurements
    assert measured.artifact.open == ["length"]
    assert [(size.batch, size.length) for size in measured.sizes] == [(1, 4), (1, 12)]
    assert (
        "1 sample of 12 tokens: p50"
        in dict(row_facts(record, record.rows[1], "local"))["At each size"]
    )
    # Products of one sample are counted at the length of the data.
    plain = run(
        recipe_of(DYNAMIC, "batch: 1", task, f"{{hf: {tmp_path / 'bert'}}}"), tmp_path / "p"
    )
    assert [row.macs for row in plain.rows] == [row.macs for row in record.rows]
    assert plain.rows[1].measurements[0].sizes == []


def test_fixed_ranges_stop_the_plan(tmp_path):
    recipe = recipe_of(STATIC, "batch: any")
    with pytest.raises(LoweringError, match="activations of fixed ranges, whose form"):
        recipe.plan(workdir=tmp_path)


def test_no_texts_stop_the_plan(tmp_path):
    recipe = recipe_of(DYNAMIC, "length: any, sizes: [4]")
    with pytest.raises(LoweringError, match="length: any is for texts, whose inputs are whole"):
        recipe.plan(workdir=tmp_path)


@pytest.mark.exhaustive  # the run above measures so too
def test_a_session_by_itself_is_at_the_first_size(tmp_path):
    recipe = recipe_of(DYNAMIC, "batch: any, sizes: [4, 8]")
    run(recipe, tmp_path)
    target = LocalTarget(batch="any", sizes=[4, 8])
    state = target.environment()["state"]
    assert state["batch"] == 4
