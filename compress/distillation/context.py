"""Terms: losses made ready for one training: where they look, what they compute, what they train.

A setting in a recipe names layers by patterns; a term knows the layers. It is made on a *scene*:
the student and the teacher that it will see, and two samples of the data to try it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from compress.distillation.teachers import ModuleTeacher
from compress.errors import DataError, SelectorError, StageError
from compress.modules.features import (
    Feature,
    capture,
    matching,
    norm_axis,
    survey,
    uniform_map,
)
from compress.modules.inputs import (
    Inputs,
    at_least_float32,
    batch_size_of,
    device_of,
    forward,
    own_tokens,
)
from compress.outputs import OutputKind
from compress.pruning.axes import channel_axes
from compress.stage import Context, Teacher
from compress.training.data import Batch, head
from compress.training.state import Stateful
from compress.training.supervision import Supervision

__all__ = [
    "Answer",
    "Layers",
    "Lesson",
    "Question",
    "Scene",
    "Term",
    "ask",
    "compared",
    "watch",
]

_PROBE_SAMPLES, _NO_VIEW = 2, -1
_MOST_LISTED = 60


@dataclass(frozen=True)
class Answer:
    """What a net says about a batch, and what else it was asked for.

    ``features`` are by the name of a layer or a lesson. ``outputs`` are ``(n, 0)`` where a teacher
    was not asked for them. ``own_tokens``, of a student's answer about padded texts, are those that
    are no padding, ``(n, tokens)``.
    """

    outputs: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    own_tokens: Tensor | None = None


@dataclass(frozen=True)
class Lesson:
    """What a teacher works out about a batch beside its answer, such as how it continues a text.

    Args:
        name: says all that the result depends on, beside the teacher and the batch.
        work: of the teacher and a batch of inputs: a tensor with samples on axis 0.
    """

    name: str
    work: Callable[[Teacher, Inputs], Tensor]


@dataclass(frozen=True)
class Term:
    """One loss, ready.

    Args:
        function: of the student's answer, the teacher's, and the labels if there are any; a scalar.
        student_layers: whose features the student's answer must hold.
        teacher_layers: whose features the teacher's answer must hold.
        companion: what is trained beside the student and thrown away after.
        others: modules and optimizers that the function moves by itself, for checkpoints.
        reads_labels: whether its value depends on the labels.
        takes: of the labels, which samples take part, ``(n,)``; ``None`` for all.
        reads_teacher: whether it looks at the teacher's outputs for the batch.
        lessons: what else the teacher's answer must hold.
        retell: of the student, a batch and the teacher's answer: another batch that the term is
            about, with the teacher's answer to that; ``None`` where it stays with the first. What
            is drawn at random comes from torch's global generator.
    """

    function: Callable[[Answer, Answer, Tensor | None], Tensor]
    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()
    companion: nn.Module | None = None
    others: tuple[Stateful, ...] = ()
    reads_labels: bool = False
    takes: Callable[[Tensor], Tensor] | None = None
    reads_teacher: bool = True
    lessons: tuple[Lesson, ...] = ()
    retell: Callable[[nn.Module, Batch, Answer], tuple[Batch, Answer] | None] | None = None


@dataclass(frozen=True)
class Question:
    """What of a teacher's answer is looked at."""

    outputs: bool = True
    layers: tuple[str, ...] = ()
    lessons: tuple[Lesson, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is looked at."""
        return not (self.outputs or self.layers or self.lessons)

    @classmethod
    def of(cls, terms: Iterable[Term]) -> Question:
        """All that some terms look at, in an order of its own."""
        given = list(terms)
        lessons = {lesson.name: lesson for term in given for lesson in term.lessons}
        return cls(
            outputs=any(term.reads_teacher for term in given),
            layers=tuple(sorted({name for term in given for name in term.teacher_layers})),
            lessons=tuple(lesson for _, lesson in sorted(lessons.items())),
        )


@dataclass(frozen=True)
class Layers:
    """The layers of one net that a loss can look into, as it answered ``inputs``."""

    whose: str
    module: nn.Module
    features: Mapping[str, Feature]
    inputs: Inputs | None = None

    def choose(self, patterns: Sequence[str]) -> list[str]:
        """The layers that paths and globs stand for, each once, in the order of the patterns.

        Raises:
            ValueError: a pattern that stands for none, or for one that runs several times.
        """
        chosen: dict[str, None] = {}
        for pattern in patterns:
            found = matching(pattern, [n for n, f in self.features.items() if f.calls == 1])
            if not found and pattern in self.features:
                raise ValueError(
                    f"{pattern!r} of {self.whose} runs {self.features[pattern].calls} times in one "
                    "pass, so that it has no one output; name a module around or before it"
                )
            if not found and matching(pattern, [n for n, _ in self.module.named_modules() if n]):
                raise ValueError(
                    f"{pattern!r} of {self.whose} gives no tensor with samples on axis 0 when the "
                    "net answers; recurrent layers and transformers do with batch_first=True"
                )
            if not found:
                raise ValueError(f"{pattern!r} matches no layer of {self.whose}")
            chosen |= dict.fromkeys(found)
        return list(chosen)

    def axis(self, name: str, *, follow: bool = True) -> int | None:
        """The axis of the channels of what a layer gives; ``None`` where it cannot be told.

        The layer's own definition says it, or the operators of the net, which is run for that once;
        without ``follow`` it is not.
        """
        feature = self.features[name]
        if feature.axis is not None or not follow:
            return feature.axis
        found = self._followed.get(name, ())
        if len(found) == 1 and found[0] > 0:
            return found[0]
        return norm_axis(self.module.get_submodule(name), len(feature.shape) + 1)

    @cached_property
    def _followed(self) -> Mapping[str, tuple[int, ...]]:
        if self.inputs is None:
            return {}
        try:
            return channel_axes(self.module, self.inputs)
        except Exception:
            return {}  # a net may hold any code: what cannot be followed is asked for

    def __str__(self) -> str:
        listed = [f"{n} {f.shape}" for n, f in self.features.items() if f.calls == 1]
        more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
        return f"{self.whose} has {', '.join(listed[:_MOST_LISTED])}{more}"


@dataclass(frozen=True)
class Scene:
    """What terms are made on. ``student`` is in eval mode while they are.

    ``implied``: what outputs are as the losses have it, where the task does not say.
    """

    student: nn.Module
    teacher: Teacher | None
    context: Context
    implied: tuple[OutputKind, ...] = ()

    @cached_property
    def example(self) -> Batch:
        """A few samples of the training data, of no view."""
        return replace(head(self.context.task.train, _PROBE_SAMPLES), view=_NO_VIEW)

    @cached_property
    def example_outputs(self) -> Tensor:
        """What the student answers to the example; no gradient."""
        with torch.no_grad():
            return forward(self.student, self.example.inputs)

    @cached_property
    def supervision(self) -> Supervision:
        """What outputs are, and what labels ask of them."""
        inputs = self.example.inputs
        return Supervision.of(self.context.task, self.example_outputs, self.implied, inputs)

    @cached_property
    def student_layers(self) -> Layers:
        """The student's layers."""
        inputs = self.example.inputs
        return Layers("the student", self.student, survey(self.student, inputs), inputs)

    @cached_property
    def teacher_layers(self) -> Layers:
        """The teacher's layers; its module must be known."""
        module = self._teacher_module
        assert module is not None
        inputs = self.example.inputs
        return Layers("the teacher", module, survey(module, inputs), inputs)

    def teacher_module(self, loss: str) -> nn.Module:
        """The module that teaches.

        Raises:
            StageError: the teacher is not a module.
        """
        if self._teacher_module is None:
            raise StageError(
                f"the loss {loss!r} looks inside the teacher, which is no module: of an ONNX file, "
                "a callable or several teachers only the outputs are known; give one with arch and "
                "weights, or use a loss of outputs such as response or rkd-distance."
            )
        return self._teacher_module

    def pairs(
        self, loss: str, student: Sequence[str], teacher: Sequence[str]
    ) -> list[tuple[str, str]]:
        """Which layer of the student learns from which of the teacher.

        One to one where there are as many of each; else TinyBERT's uniform map.

        Raises:
            SelectorError: a pattern that matches nothing, or too few layers of the teacher's.
            StageError: the teacher is not a module.
        """
        self.teacher_module(loss)
        learning, teaching = self.student_layers, self.teacher_layers
        try:
            ours, theirs = learning.choose(student), teaching.choose(teacher)
            places = uniform_map(len(ours), len(theirs))
        except ValueError as error:
            raise self.misfit(loss, str(error)) from None
        return [(name, theirs[place]) for name, place in zip(ours, places, strict=True)]

    def misfit(self, loss: str, problem: str) -> SelectorError:
        """An error about layers, with all that there are; shapes are for one sample."""
        return SelectorError(
            f"the loss {loss!r}: {problem.rstrip('.')}; {self.student_layers}; "
            f"{self.teacher_layers}."
        )

    def tried(self, loss: str, term: Term) -> Term:
        """The term, once it has been computed for the example.

        Raises:
            SelectorError: layers whose features do not fit together.
            DataError: outputs that do not fit together.
        """
        student = watch(self.student, self.student, self.example, term.student_layers)
        teacher = student
        if self.teacher is not None:
            teacher = ask(self.teacher, self.example, Question.of([term]))
        try:
            answers = compared(
                term, self.student, self.student, self.example, teacher, lambda: student
            )
            value = term.function(*answers, self.example.labels)
        except DataError as error:
            if not term.teacher_layers:
                raise
            raise self.misfit(loss, str(error)) from error
        if not value.requires_grad:
            raise StageError(
                f"the loss {loss!r} does not depend on what the student answers, so that nothing "
                "can be learned from it; it must be worked out from the student's outputs with "
                "torch."
            )
        return term

    @property
    def _teacher_module(self) -> nn.Module | None:
        return self.teacher.module if isinstance(self.teacher, ModuleTeacher) else None


def watch(run: nn.Module, student: nn.Module, batch: Batch, layers: Sequence[str]) -> Answer:
    """The student's answer; ``run`` is the student, perhaps wrapped to run on several devices."""
    with capture(student, layers) as seen:
        outputs = forward(run, batch.inputs)
    return Answer(outputs, dict(seen), own_tokens(batch.inputs))


def compared(
    term: Term,
    run: nn.Module,
    student: nn.Module,
    batch: Batch,
    teacher: Answer,
    plain: Callable[[], Answer],
) -> tuple[Answer, Answer]:
    """The student's and the teacher's answers that a term compares.

    Args:
        term: may be about another batch.
        run: the student, perhaps wrapped.
        student: the student.
        batch: what is shown.
        teacher: its answer to that.
        plain: gives the student's answer to that.
    """
    told = term.retell(run, batch, teacher) if term.retell is not None else None
    if told is None:
        return plain(), teacher
    other, answer = told
    return watch(run, student, other, term.student_layers), answer


@torch.no_grad()
def ask(teacher: Teacher, batch: Batch, question: Question) -> Answer:
    """The teacher's answer; what it gives in half precision, in float32.

    Raises:
        StageError: an answer for another number of samples, or one that is not finite.
    """
    expected, seen = batch_size_of(batch.inputs), dict[str, Tensor]()
    outputs = torch.empty(expected, 0, device=device_of(batch.inputs))
    if question.layers:
        assert isinstance(teacher, ModuleTeacher)
        with capture(teacher.module, question.layers) as seen:
            outputs = teacher(batch.inputs)
    elif question.outputs:
        outputs = teacher(batch.inputs)
    lessons = {lesson.name: lesson.work(teacher, batch.inputs) for lesson in question.lessons}
    found = {**seen, **lessons}
    answer = Answer(
        at_least_float32(outputs), {name: at_least_float32(one) for name, one in found.items()}
    )
    if answer.outputs.shape[:1] != (expected,):
        given = len(answer.outputs) if answer.outputs.dim() else "no separate"
        raise StageError(f"the teacher gives {given} answers for a batch of {expected} samples.")
    for what, tensor in {"outputs": answer.outputs, **answer.features}.items():
        if not bool(torch.isfinite(tensor).all()):
            where = f"batch {batch.index + 1} of view {batch.view + 1}"
            raise StageError(
                f"the teacher returned values that are not finite ({what}) for "
                f"{'the first samples' if batch.view == _NO_VIEW else where}; look at its weights, "
                "and at what it is asked."
            )
    return answer
