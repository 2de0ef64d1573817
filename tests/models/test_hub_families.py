"""Families from tiny folders: the task that optimum finds, and every stage and export on each."""

import importlib.util
import json
import re
import subprocess
import sys

import onnx
import pytest
import torch
from torch import nn

from compress import DistillStage, PruneStage, QuantizeStage, Task
from compress.candidate import Candidate
from compress.distillation.teachers import frozen_teacher
from compress.errors import DataError, MissingExtra, NoEffect, RecipeError
from compress.models.build import build_module
from compress.models.hub_export import ExportedRow, write_hub_folder
from compress.models.hub_tasks import HUB_TASKS
from compress.models.huggingface import build_hub_model, load_folder, read_architecture
from compress.models.settings import HubSettings
from compress.modules.inputs import forward
from compress.stage import Context
from compress.testing.tiny_hub import TINY_FAMILIES, inputs_like, write_family

pytest.importorskip("transformers")
HAS_OPTIMUM = all(importlib.util.find_spec(name) for name in ("optimum", "requests"))
# Whose attention has a number in its forward that no layer gives: its heads stay.
WHOLE = {"wav2vec2"}
# Whose layers another family has too: built, exported and compared by tests of their own.
ALIKE = ("distilbert", "roberta", "mpnet", "mobilebert", "vit", "gpt2", "ast", "bert-tokens")
THROUGH_STAGES = [
    pytest.param(family, marks=[pytest.mark.exhaustive] if family in ALIKE else [])
    for family in TINY_FAMILIES
]
needs_optimum = pytest.mark.skipif(not HAS_OPTIMUM, reason="optimum is not installed")


class Samples:
    """Inputs of a family without labels."""

    def __init__(self, family, count, seed):
        self.inputs = inputs_like(family, count, seed)
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        if not 0 <= place < self.count:
            raise IndexError(place)
        if isinstance(self.inputs, dict):
            return {name: tensor[place] for name, tensor in self.inputs.items()}
        return self.inputs[place]


def candidate_of(folder, family):
    write_family(folder, family)
    architecture = read_architecture(folder, TINY_FAMILIES[family][3])
    model = build_hub_model(architecture.options)
    load_folder(model, folder)
    own = Candidate.of(model, inputs_like(family, 4))
    return Candidate(own.module, own.example, architecture, notes=own.notes)


def context_of(candidate, family, workdir):
    splits = (Samples(family, count, seed) for seed, count in enumerate((16, 8, 8)))
    task = Task("samples", *splits, metric="mse", outputs="values")
    return Context(
        task=task,
        teacher=frozen_teacher(candidate.fork().module),
        origin=candidate,
        seed=0,
        workdir=workdir,
        build=lambda architecture: build_module(architecture, None),
    )


@needs_optimum
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_optimum_finds_what_a_folder_is_for(family, tmp_path):
    write_family(tmp_path, family)
    assert read_architecture(tmp_path, "auto").options["task"] == TINY_FAMILIES[family][3]


def without_heads(candidate, context, family):
    stage = PruneStage(granularity="heads", ratio=0.5)
    if family not in WHOLE:
        return stage.run(candidate, context)
    with pytest.raises(NoEffect, match="no block has heads that can be removed by themselves"):
        stage.run(candidate, context)
    return candidate


@pytest.mark.parametrize("family", THROUGH_STAGES)
def test_a_family_goes_through_every_stage_and_is_exported(family, tmp_path):
    start = candidate_of(tmp_path / "folder", family)
    context = context_of(start, family, tmp_path)
    learned = DistillStage(
        student="self", epochs=1, batch_size=8, losses=[{"kind": "logits-mse"}]
    ).run(start, context)
    assert learned.fingerprint != start.fingerprint
    small = QuantizeStage(weights="int8", activations="dynamic").run(learned, context)
    pruned = without_heads(small, context, family)
    pruned.save(tmp_path / "saved")
    loaded = Candidate.load(tmp_path / "saved", start.example, context.build)
    assert loaded.fingerprint == pruned.fingerprint
    row = ExportedRow("tiny", 3, "prune", loaded.fingerprint, "stages/03-prune/model.onnx")
    made = write_hub_folder(
        loaded, tmp_path / "folder", inputs_like(family, 5), tmp_path / "out", row
    )
    assert all(parity.r_squared > 0.99 for parity in made.parities.values())
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    task = TINY_FAMILIES[family][3]
    wanted = "last_hidden_state" if task == "feature-extraction" else "logits"
    assert [value.name for value in graph.output] == [wanted]
    assert graph.input[0].name == HUB_TASKS[task].takes
    assert made.opened_by == HUB_TASKS[task].opened_by
    facts = json.loads((tmp_path / "out" / "compresskit.json").read_text())
    assert set(facts["attention_heads"].values()) == {4 if family in WHOLE else 2}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == [TINY_FAMILIES[family][0]]


@torch.no_grad()
@pytest.mark.parametrize("family", ["bert-tokens", "albert", "gpt2", "vit", "wav2vec2", "ast"])
def test_the_output_is_what_transformers_gives(family, tmp_path):
    import transformers

    start = candidate_of(tmp_path, family)
    name = TINY_FAMILIES[family][0]
    model = getattr(transformers, name).from_pretrained(tmp_path, attn_implementation="eager")
    batch = inputs_like(family, 3)
    named = batch if isinstance(batch, dict) else {start.module.input_names[0]: batch}
    expected = model.eval()(**named).logits
    assert torch.allclose(forward(start.module, batch), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "task", "said"),
    [
        (
            "vit",
            "feature-extraction",
            "a decoder of texts is taken from a folder; say `task: image-classification`, or give",
        ),
        (
            "ast",
            "text-classification",
            "taken from a folder for text-classification; say `task: audio-classification`, or",
        ),
        (
            "bert",
            "image-classification",
            "only a classifier of images is taken from a folder for image-classification; say",
        ),
        (
            "bert",
            "text-generation",
            "the model type 'bert' looks at later tokens too (is_decoder is false), and only",
        ),
    ],
)
def test_another_modality_is_named(family, task, said, tmp_path):
    write_family(tmp_path, family)
    with pytest.raises(RecipeError, match=re.escape(said)):
        read_architecture(tmp_path, task)


def test_audio_of_other_inputs_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(RecipeError, match="'whisper' has an encoder and a decoder, and"):
        read_architecture(tmp_path, "audio-classification")


@needs_optimum
@pytest.mark.parametrize(
    ("architectures", "said"),
    [
        (None, "names none as the class of the model (architectures); say which with `task`: "),
        (["Nonsense"], "names Nonsense, which transformers lacks as the class of the model"),
        (["BertForQuestionAnswering"], "class BertForQuestionAnswering is for question-answering;"),
        (["BertForPreTraining"], "class BertForPreTraining is for no one task that optimum knows;"),
        (["logging"], "names logging, which transformers lacks as the class of the model"),
        ("BertModel", "names none as the class"),
    ],
)
def test_a_task_that_cannot_be_found_is_asked_for(architectures, said, tmp_path):
    write_family(tmp_path, "bert")
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"architectures": architectures}))
    with pytest.raises(RecipeError, match=re.escape(said)):
        read_architecture(tmp_path, "auto")


@pytest.mark.parametrize("missing", ["optimum", "requests"])
def test_without_optimum_the_task_is_asked_for(missing, tmp_path, monkeypatch):
    write_family(tmp_path, "bert")
    find = importlib.util.find_spec
    lacks = lambda name: None if name == missing else (find(name) or True)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", lacks)
    said = rf"needs {missing}, which is not installed: pip install 'compresskit\[transf"
    with pytest.raises(MissingExtra, match=said):
        read_architecture(tmp_path, "auto")
    assert read_architecture(tmp_path, "text-classification").options["task"]


@pytest.mark.parametrize(
    ("family", "batch", "said"),
    [
        ("vit", torch.randn(2, 16, 16), r"float32 of shape \(2, 16, 16\); a model of images takes"),
        (
            "vit",
            torch.ones(2, 3, 16, 16).int(),
            r"int32 of shape .*; a model of images takes",
        ),
        ("ast", torch.randn(4), r"float32 of shape \(4,\); a model of audio takes floats of shape"),
    ],
)
def test_batches_of_another_shape_are_refused(family, batch, said, tmp_path):
    start = candidate_of(tmp_path, family)
    with pytest.raises(DataError, match=said):
        start.module(batch)


def test_what_gives_no_logits_is_refused():
    from compress.models.signal_classifier import ImageClassifier

    class Bare(nn.Module):
        def forward(self, pixel_values):
            return pixel_values

    with pytest.raises(DataError, match="the model gives no logits; wrap it in a module that"):
        ImageClassifier(Bare())(torch.randn(2, 3, 4, 4))


def test_so_many_classes_may_be_asked_for(tmp_path):
    write_family(tmp_path, "vit")
    options = read_architecture(tmp_path, "image-classification", changes={"num_labels": 7}).options
    assert options["config"]["num_labels"] == 7
    assert "id2label" not in options["config"]
    settings = HubSettings(
        hf=tmp_path, task="image-classification", config={"num_labels": 7}, pretrained=False
    )
    module = build_module(settings.architecture, None)
    assert forward(module, inputs_like("vit", 2)).shape == (2, 7)
    with pytest.raises(RecipeError, match=re.escape("it has no key 'classes' to change")):
        read_architecture(tmp_path, "image-classification", changes={"classes": 7})


def test_a_folder_is_written_by_a_command(tmp_path):
    command = [sys.executable, "-m", "compress.testing.tiny_hub", "vit", str(tmp_path / "tiny-vit")]
    subprocess.run(command, check=True, capture_output=True)
    files = {path.name for path in (tmp_path / "tiny-vit").iterdir()}
    assert files == {"config.json", "model.safetensors"}
