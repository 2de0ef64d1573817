"""Batches are cut to their longest text where no net's outputs depend on the padding."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from compress import Candidate, DistillStage, Task
from compress.distillation.teachers import frozen_teacher
from compress.errors import StageError
from compress.tasks.tokens import TokenDataset
from compress.testing.stage_contract import bench_context

PADDED, WORDS = 12, 30


class Encoder(nn.Module):
    """The mean of what words mean, of those that count."""

    def __init__(self, width=8, masked=True):
        super().__init__()
        self.words, self.masked = nn.Embedding(WORDS, width), masked
        self.mix, self.head = nn.Linear(width, width), nn.Linear(width, 4)

    def forward(self, input_ids, attention_mask):
        each = torch.relu(self.mix(self.words(input_ids)))
        counts = attention_mask.unsqueeze(-1).to(each.dtype)
        if not self.masked:
            counts = torch.ones_like(counts)
        return self.head((each * counts).sum(1) / counts.sum(1))


class Fixed(Encoder):
    """One that takes inputs of one length only, as many exported files do."""

    def forward(self, input_ids, attention_mask):
        return super().forward(input_ids.reshape(-1, PADDED), attention_mask.reshape(-1, PADDED))


def texts(count, longest=6):
    lengths = torch.randint(2, longest + 1, (count, 1))
    words = torch.randint(1, WORDS, (count, PADDED))
    return TokenDataset(torch.where(torch.arange(PADDED) < lengths, words, -1).int(), 0)


def task(longest=6):
    return Task("texts", *(texts(count, longest) for count in (96, 20, 20)), outputs="values")


HIDDEN = {"kind": "hidden", "student": "mix", "teacher": "mix"}


def distilled(tmp_path, student, teacher, task_, **given):
    """The student after it learned, its notes, and the shapes of all that it was trained on."""
    inputs = {"input_ids": torch.ones(2, PADDED).long(), "attention_mask": torch.ones(2, PADDED)}
    inputs["attention_mask"] = inputs["attention_mask"].long()
    start = Candidate.of(student, inputs)
    context = replace(
        bench_context(start, tmp_path), task=task_, teacher=frozen_teacher(teacher.eval())
    )
    seen = []
    losses = given.pop("losses", [{"kind": "logits-mse"}])
    stage = DistillStage(epochs=2, batch_size=16, losses=losses, **given)
    forward = Encoder.forward

    def watched(self, input_ids, attention_mask):
        if self.training:
            seen.append(input_ids.shape[1])
        return forward(self, input_ids, attention_mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "forward", watched)
        after = stage.run(start, context)
    return after, " ".join(after.notes), seen


def test_nets_with_a_mask_are_trained_on_short_batches(tmp_path):
    _, notes, seen = distilled(tmp_path, Encoder(), Encoder(16), task())
    assert "batches are cut to their longest text: " in notes
    assert max(seen) <= 6


@pytest.mark.parametrize("who", ["the student", "the teacher"])
@pytest.mark.parametrize("other", [lambda: Encoder(masked=False), Fixed])
def test_a_net_that_sees_the_padding_keeps_it(tmp_path, who, other):
    nets = (other(), Encoder()) if who == "the student" else (Encoder(), other())
    _, notes, seen = distilled(tmp_path, *nets, task())
    assert f"batches keep their padding: the outputs of {who} depend on it" in notes
    assert set(seen) == {PADDED}


def test_it_can_be_switched_off(tmp_path):
    _, notes, seen = distilled(tmp_path, Encoder(), Encoder(), task(), by_length=False)
    assert "batches" not in notes
    assert set(seen) == {PADDED}


def test_what_cannot_be_had_is_refused_where_it_was_asked_for(tmp_path):
    with pytest.raises(StageError, match=r"by_length: .* the outputs of the student depend on it"):
        distilled(tmp_path, Encoder(masked=False), Encoder(), task(), by_length=True)
    whole = task()
    for split in (whole.train, whole.validation, whole.test):
        split.inputs.clamp_(min=1)
    with pytest.raises(StageError, match=r"by_length: .* no sample is shorter than the inputs"):
        distilled(tmp_path, Encoder(), Encoder(), whole, by_length=True)


def test_the_cached_outputs_of_a_teacher_are_those_of_every_batch(tmp_path):
    torch.manual_seed(0)
    student, teacher = Encoder(), Encoder()
    losses = [{"kind": "logits-mse"}, HIDDEN]
    run = [
        distilled(tmp_path / name, student, teacher, data, losses=losses, **given)
        for data in [task()]
        for name, given in {"cached": {"views": 1}, "again": {"views": 2}}.items()
    ]
    assert all("batches are cut" in notes for _, notes, _ in run)
    cached = list((tmp_path / "cached").rglob("*.npy"))
    assert len(cached) == 2  # outputs, and features as long as the padding, filled up
    assert all(max(seen) <= 6 for _, _, seen in run)


def test_training_with_a_cache_is_training_without(tmp_path):
    torch.manual_seed(0)
    student, teacher, data = Encoder(), Encoder(), task()
    losses = [{"kind": "logits-mse"}, HIDDEN]
    # Epochs repeat in both: the second is read from the disk, or the teacher is called again.
    first, _, _ = distilled(tmp_path / "a", student, teacher, data, losses=losses, views=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compress.stages.fit.cached_teacher", _called_again)
        second, _, _ = distilled(tmp_path / "b", student, teacher, data, losses=losses, views=1)
    for name, tensor in first.module.state_dict().items():
        torch.testing.assert_close(tensor, second.module.state_dict()[name], rtol=0, atol=1e-6)


def _called_again(context, losses, data, distinct_epochs, settings):
    from compress.distillation.teacher_cache import cached_teacher

    return cached_teacher(context, losses, data, None, settings)
