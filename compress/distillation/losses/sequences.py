"""Losses on texts that a net continues by itself; nets score next tokens and are causal.

A text is a window of tokens ``(n, length)``, as the data has it: its first ``prompt`` tokens stay,
and the next ``tokens`` are the teacher's or the student's own. Word-level distillation, at every
place of the data's own text, is ``response``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.config.fields import LARGEST_COUNT, Number, Whole
from compress.distillation import functions
from compress.distillation.context import DistillationContext
from compress.distillation.decoding import NextToken, beam_search, padded, sample
from compress.distillation.functions.checks import same_outputs
from compress.distillation.loss_function import (
    ExtraOutput,
    LossFunction,
    ModelOutputs,
    RequiredOutputs,
    teacher_forward,
)
from compress.distillation.losses.base import LossBlock
from compress.distillation.teachers import ModuleTeacher
from compress.errors import DataError
from compress.modules.inputs import Inputs, forward
from compress.outputs import CLASS_KINDS, OutputKind
from compress.stage import Teacher
from compress.training.data import Batch

__all__ = ["GkdLoss", "SequenceLoss"]

# How much of the largest score may change with what comes later: rounding, and no more.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class _Span:
    """Which tokens of a window are made: ``count`` of them from ``start`` on, of ``length``.

    ``student_takes_less`` and ``teacher_takes_less``: whether each can be asked about the front of
    a window alone.
    """

    start: int
    count: int
    length: int
    student_takes_less: bool
    teacher_takes_less: bool

    @property
    def places(self) -> slice:
        """Where in the outputs their scores are: each is of the token after it."""
        return slice(self.start - 1, self.start + self.count - 1)

    def continued(self, batch: Batch, tokens: Tensor) -> Batch:
        """The batch with these tokens in their places."""
        windows = _tokens(batch.inputs).clone()
        windows[:, self.start : self.start + self.count] = tokens
        return replace(batch, inputs=windows, labels=None, mixed_targets=None)


class ContinuationBlock(LossBlock):
    """``prompt`` tokens of each text are given, and ``tokens`` more, or all the rest, are made."""

    takes_logits: ClassVar[bool] = True
    implied_kind: ClassVar[OutputKind | None] = "tokens"
    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset(CLASS_KINDS)
    prompt: Whole = Field(default=16, ge=1, le=LARGEST_COUNT)
    tokens: Whole | None = Field(default=None, ge=1, le=LARGEST_COUNT)

    def span(self, context: DistillationContext) -> _Span:
        """The tokens that are made, once both nets are seen to be fit for it.

        Raises:
            DataError: these are no texts, too short ones, or nets that are not causal.
        """
        windows, outputs = self._windows(context.example.inputs), context.example_outputs
        length = windows.shape[1]
        if outputs.dim() != 3 or outputs.shape[2] != length:
            raise DataError(
                f"{self.kind} continues texts by scores of the next token at every place, "
                f"(n, classes, {length}); the outputs are {tuple(outputs.shape)}."
            )
        count = length - self.prompt if self.tokens is None else self.tokens
        if count < 1 or self.prompt + count > length:
            raise DataError(
                f"{self.kind}: a prompt of {self.prompt} tokens and {max(count, 1)} more do not "
                f"fit in texts of {length}; set a smaller prompt or tokens."
            )
        assert context.teacher is not None
        same_outputs(
            outputs, teacher_forward(context.teacher, context.example, RequiredOutputs()).outputs
        )
        student, teacher = _asked(context.student), context.teacher
        # A file has one length, and its rounding may depend on all that it is shown.
        is_known = isinstance(teacher, ModuleTeacher)
        self._check_causal("the student", student, windows)
        if is_known:
            self._check_causal("the teacher", teacher, windows)
        return _Span(
            start=self.prompt,
            count=count,
            length=length,
            student_takes_less=_takes_less(student, windows, self.prompt),
            teacher_takes_less=is_known and _takes_less(teacher, windows, self.prompt),
        )

    def _windows(self, inputs: Inputs) -> Tensor:
        if isinstance(inputs, Tensor) and inputs.dim() == 2 and not inputs.is_floating_point():
            return inputs
        if isinstance(inputs, Tensor):
            given = f"{tuple(inputs.shape)} of {inputs.dtype}"
        else:
            given = f"a dictionary of {', '.join(inputs)}"
        raise DataError(
            f"{self.kind} continues texts, one tensor of tokens (n, length) in whole numbers; the "
            f"inputs are {given}."
        )

    @torch.no_grad()
    def _check_causal(self, who: str, net: NextToken, windows: Tensor) -> None:
        other = windows.clone()
        other[:, self.prompt :] = windows[:, :1]  # any other tokens that there are
        if not _equal(*(net(given)[:, :, : self.prompt] for given in (windows, other))):
            raise DataError(
                f"{self.kind}: {who} is not causal: what it says about the first {self.prompt} "
                "tokens depends on those that follow, so that it cannot continue a text."
            )


class SequenceLoss(ContinuationBlock):
    """Learn the teacher's own continuation of each text as if it were the data (Kim and Rush 2016).

    The teacher searches for it with ``beams``; 1 is greedy. That costs it a pass over the text for
    each token and beam, so set ``views: 1``: continuations are then made once and kept.
    """

    kind: Literal["sequence"] = "sequence"
    beams: Whole = Field(default=1, ge=1, le=1024)

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """Cross-entropy on what the teacher has decoded."""
        span, beams = self.span(context), self.beams

        def decode(teacher: Teacher, inputs: Inputs) -> Tensor:
            net = teacher if span.teacher_takes_less else padded(teacher, span.length)
            return beam_search(net, _tokens(inputs), span.start, span.count, beams)

        lesson = ExtraOutput(f"{span.count} tokens after {span.start} by {beams} beams", decode)

        def retell(_: nn.Module, batch: Batch, teacher: ModelOutputs) -> tuple[Batch, ModelOutputs]:
            return span.continued(batch, teacher.features[lesson.name]), teacher

        def function(student: ModelOutputs, teacher: ModelOutputs, _: Tensor | None) -> Tensor:
            scores = student.outputs[:, :, span.places]
            return functions.sequence(scores, teacher.features[lesson.name])

        return LossFunction(
            function, reads_teacher_outputs=False, extra_outputs=(lesson,), generated_batch=retell
        )


class GkdLoss(ContinuationBlock):
    """Hear the teacher's opinion of what the student itself writes (Agarwal et al. 2024).

    Of a share ``on_policy`` of the batches the student continues the prompts, token by token at
    random, and the teacher scores every token; the others stay as the data has them. The loss is
    the divergence of the two at the same places, generalized by ``beta``.
    """

    kind: Literal["gkd"] = "gkd"
    beta: Number = Field(default=0.5, ge=0, le=1)
    on_policy: Number = Field(default=0.5, ge=0, le=1)

    def loss_function(self, context: DistillationContext) -> LossFunction:
        """The divergence, on a text that may be the student's own."""
        span, teacher = self.span(context), context.teacher
        assert teacher is not None

        def retell(
            student: nn.Module, batch: Batch, _: ModelOutputs
        ) -> tuple[Batch, ModelOutputs] | None:
            if float(torch.rand(())) >= self.on_policy:
                return None
            with _speaking(student) as speaker:
                net = speaker if span.student_takes_less else padded(speaker, span.length)
                tokens = sample(net, _tokens(batch.inputs), span.start, span.count)
            told = span.continued(batch, tokens)
            return told, teacher_forward(teacher, told, RequiredOutputs())

        def function(student: ModelOutputs, taught: ModelOutputs, _: Tensor | None) -> Tensor:
            ours, theirs = (answer.outputs[:, :, span.places] for answer in (student, taught))
            return functions.gkd(ours, theirs, self.beta)

        return LossFunction(
            function, reads_teacher_outputs=self.on_policy < 1, generated_batch=retell
        )


@contextmanager
def _speaking(student: nn.Module) -> Iterator[NextToken]:
    """The student as it computes, without what is random in training."""
    was_training = student.training
    student.eval()
    try:
        yield _asked(student)
    finally:
        student.train(was_training)


def _asked(net: nn.Module) -> NextToken:
    return lambda windows: forward(net, windows)


@torch.no_grad()
def _takes_less(net: NextToken, windows: Tensor, length: int) -> bool:
    """Whether a net takes the front of a window alone, and says the same about it."""
    whole = net(windows)[:, :, :length]
    try:
        front = net(windows[:, :length])
    except Exception:  # made for one length, and every net has its own way to say so
        return False
    return front.shape == whole.shape and _equal(front, whole)


def _equal(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) <= _ROUNDING * float(one.abs().max())


def _tokens(inputs: Inputs) -> Tensor:
    assert isinstance(inputs, Tensor)
    return inputs
