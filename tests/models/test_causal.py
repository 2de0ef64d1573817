"""A causal model of a folder with its own tokenizer: next tokens, every stage, and its export."""

import numpy as np
import pytest
import torch

from compress import DistillStage, LocalTarget, Recipe, ReplayTarget, Task
from compress.cli import main
from compress.errors import DataError, RecipeError
from compress.measure.perplexity import bits_per_token
from compress.modules.inputs import forward
from compress.tasks import TaskConfig, make_task
from compress.testing.tiny_bert import WORDS, write_lines
from compress.testing.tiny_hub import inputs_like, write_family
from compress.training.data import head

pytest.importorskip("transformers")

GKD = "{kind: gkd, prompt: 4, tokens: 4}, {kind: topk-kl, k: 8}, {kind: label, weight: 0.2}"
STAGES = (
    f"kind: distill, student: {{layers: [1]}}, losses: [{GKD}], batch_size: 32",
    "kind: quantize, weights: int8, activations: dynamic",
    "kind: prune, granularity: heads, ratio: 0.5",
)


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    write_lines(path, 200)
    return path


def recipe_on(folder, lines, *stages, model="task: text-generation"):
    blocks = "".join(f"  - {{{stage}}}\n" for stage in stages)
    return Recipe.loads(
        f"task: {{name: text, path: {lines}, tokenizer: {folder}, max_length: 12, "
        f"limit: 32, labels: next-token}}\nmodel: {{hf: {folder}, {model}}}\nstages:\n{blocks}"
    )


@pytest.mark.parametrize("family", [pytest.param("gpt2", marks=pytest.mark.exhaustive), "llama"])
def test_a_language_model_goes_through_every_stage_and_is_exported(family, lines, tmp_path, capsys):
    import onnx

    folder = tmp_path / "folder"
    write_family(folder, family)
    recipe = recipe_on(folder, lines, *STAGES)
    task = recipe.make_task()
    start = recipe.make_candidate(task)
    run = tmp_path / "run"
    record = recipe.run(start, task, workdir=run, targets=[ReplayTarget()], report=False)
    assert record.status == "done"
    assert (record.task.metric, record.task.higher_is_better) == ("bits_per_token", False)
    for row in record.rows:
        score = row.measurements[0].accuracy
        low, high = score.ci95
        assert low < score.value < high
    # Random weights know no more than how often each of 38 tokens comes.
    assert record.rows[0].measurements[0].accuracy.value == pytest.approx(np.log2(38), abs=1.5)
    parameters = [row.parameters for row in record.rows]
    assert parameters[0] > parameters[1] == parameters[2] > parameters[3]
    out = tmp_path / "out"
    assert main(["export", str(run), "--row", "3", "--format", "hf", "--out", str(out)]) == 0
    assert "ORTModelForCausalLM" in capsys.readouterr().out
    (output,) = onnx.load(out / "model.onnx").graph.output
    sizes = [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim]
    assert sizes == ["batch_size", "sequence_length", 38]


@torch.no_grad()
def test_the_score_is_what_transformers_gives(lines, tmp_path):
    from transformers import LlamaForCausalLM

    write_family(tmp_path / "folder", "llama")
    recipe = recipe_on(tmp_path / "folder", lines, "kind: quantize")
    task = recipe.make_task()
    batch = head(task.test, 3)
    ours = forward(recipe.make_candidate(task).module, batch.inputs)
    assert ours.shape == (3, 38, 12)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path / "folder").eval()
    logits = theirs(batch.inputs).logits
    assert torch.allclose(ours, logits.transpose(1, 2), atol=1e-4)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
    bits = bits_per_token(ours.numpy(), batch.labels.numpy())
    assert bits.mean() == pytest.approx(float(loss) / np.log(2), rel=1e-5)


def test_windows_are_the_lines_one_after_another_with_an_end_between(bert, lines):
    task = make_task(
        TaskConfig(name="text", path=lines, tokenizer=bert, max_length=10, labels="next-token")
    )
    assert task.outputs == "tokens"
    assert task.classes[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", WORDS[0])
    stream = []
    for part in (task.train, task.validation, task.test):
        batch = head(part, len(part))
        assert batch.inputs.shape == batch.labels.shape == (len(part), 10)
        assert torch.equal(batch.inputs[:, 1:], batch.labels[:, :-1])
        assert torch.equal(batch.labels[:-1, -1], batch.inputs[1:, 0])
        assert int(batch.inputs[0, 0]) == 3
        stream += batch.inputs.flatten().tolist()
    # After each end comes the tokenizer's own mark of a beginning, and before it a word.
    ends = [place for place, token in enumerate(stream[:-1]) if token == 3]
    assert sum(stream[place + 1] == 2 for place in ends) > 150
    assert not any(stream[place] == stream[place + 1] == 3 for place in ends)
    again = make_task(
        TaskConfig(name="text", path=lines, tokenizer=bert, max_length=10, labels="next-token")
    )
    assert torch.equal(again.train.inputs, task.train.inputs)


def test_the_end_of_a_text_is_the_tokenizers_own(bert, lines):
    (bert / "tokenizer_config.json").write_text('{"eos_token": "[UNK]"}')
    config = TaskConfig(name="text", path=lines, tokenizer=bert, labels="next-token")
    assert int(make_task(config).train[0][0][0]) == 1
    content = (bert / "tokenizer.json").read_text().replace("[SEP]", "[end]")
    (bert / "tokenizer.json").write_text(content)
    (bert / "tokenizer_config.json").unlink()
    with pytest.raises(DataError, match=r"no token for the end of a text, .* name one as eos_tok"):
        make_task(config)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"labels": True}, RecipeError, r"task\.labels: .*next-token"),
        ({"labels": "classes"}, RecipeError, r"task\.labels: .*next-token"),
        (
            {"labels": "next-token", "max_length": 400},
            DataError,
            r"lines\.txt has \d+ tokens, too few for windows of 400 in training, validation",
        ),
    ],
)
def test_options_that_are_refused(options, error, said, bert, lines):
    settings = ", ".join(f"{key}: {str(value).lower()}" for key, value in options.items())
    text = f"task: {{name: text, path: {lines}, tokenizer: {bert}, {settings}}}\n"
    with pytest.raises(error, match=said):
        Recipe.loads(f"{text}model: {{hf: {bert}}}\nstages: [{{kind: quantize}}]\n").make_task()


@pytest.mark.parametrize("who", ["model", "student", "teacher"])
def test_what_does_not_tell_the_next_token_is_refused(who, bert, lines, tmp_path):
    write_family(tmp_path / "llama", "llama")
    said = (
        r"hf: .*: task 'text' is to tell the next token, and the model is used for "
        r"feature-extraction; write `task: text-generation` beside hf, for a causal model\."
    )
    if who == "model":
        recipe = recipe_on(bert, lines, "kind: quantize", model="pooling: mean")
        with pytest.raises(RecipeError, match=said):
            recipe.make_candidate(recipe.make_task())
        return
    stage = DistillStage(**{who: {"hf": str(bert)}}, losses=[{"kind": "response"}])
    recipe = recipe_on(tmp_path / "llama", lines, "kind: quantize")
    task = recipe.make_task()
    recipe = Recipe(name="x", stages=[stage])
    start = recipe_on(tmp_path / "llama", lines, "kind: quantize").make_candidate(task)
    with pytest.raises(RecipeError, match=said):
        recipe.run(start, task, workdir=tmp_path / "run", targets=[ReplayTarget()], report=False)


def test_an_encoder_is_no_causal_model(bert, lines):
    recipe = recipe_on(bert, lines, "kind: quantize")
    with pytest.raises(RecipeError, match=r"'bert' looks at later tokens too \(is_decoder is fals"):
        recipe.make_candidate(recipe.make_task())


def test_a_built_in_language_model_takes_the_tokenizers_tokens(bert, lines):
    text = (
        f"task: {{name: text, path: {lines}, tokenizer: {bert}, max_length: 12, "
        "labels: next-token}\nmodel: {arch: causal-lm, width: 16, depth: 1, heads: 2}\n"
        "stages: [{kind: quantize}]\n"
    )
    recipe = Recipe.loads(text)
    task = recipe.make_task()
    assert forward(recipe.make_candidate(task).module, head(task.test, 2).inputs).shape == (
        2,
        len(WORDS) + 4,
        12,
    )


class Tagged:
    """Texts with a class for each token."""

    def __init__(self, count, seed):
        self.inputs = inputs_like("bert-tokens", count, seed)

    def __len__(self):
        return len(self.inputs["input_ids"])

    def __getitem__(self, place):
        if not 0 <= place < len(self):
            raise IndexError(place)
        own = {name: tensor[place] for name, tensor in self.inputs.items()}
        # Of padding there is no class.
        return own, torch.where(own["attention_mask"] > 0, own["input_ids"] % 4, -100)


@pytest.mark.exhaustive  # bert-tokens goes through every stage in test_hub_families.py
@pytest.mark.parametrize("outputs", [None, "class-scores"])
def test_classes_of_tokens_are_learned(outputs, tmp_path):
    write_family(tmp_path / "folder", "bert-tokens")
    splits = (Tagged(count, seed) for seed, count in enumerate((32, 12, 12)))
    task = Task("tags", *splits, metric="accuracy", outputs=outputs)
    recipe = Recipe.loads(
        f"model: {{hf: {tmp_path / 'folder'}, task: token-classification}}\n"
        "stages:\n  - {kind: train, epochs: 8, batch_size: 8, learning_rate: 0.003}\n"
        "  - {kind: prune, granularity: heads, ratio: 0.5}\n"
    )
    start = recipe.make_candidate(task)
    assert forward(start.module, start.example).shape[1:] == (4, 12)
    record = recipe.run(
        start, task, workdir=tmp_path / "run", targets=[LocalTarget()], mode="quick", report=False
    )
    before, after = (row.measurements[0].accuracy.value for row in record.rows[:2])
    assert after > max(0.8, before)
