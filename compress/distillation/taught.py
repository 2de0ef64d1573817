"""How the outputs of a teacher are read: by which names, and which are probabilities."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from compress.distillation.probabilities import logits_of
from compress.errors import DataError, RecipeError
from compress.modules.outputs import Outputs, by_name

__all__ = ["AS_IT_IS", "Reading"]


@dataclass(frozen=True)
class Reading:
    """How a teacher's outputs are read.

    Args:
        outputs: the teacher's name of each output that teaches, by the student's name for it; empty
            where both have the same names, and all are read.
        from_probabilities: whether the outputs are probabilities, of which the logarithm is taken;
            of several, the names of those that are, as the teacher has them.
    """

    outputs: Mapping[str, str] = field(default_factory=dict)
    from_probabilities: bool | tuple[str, ...] = False

    def read(self, given: Outputs, teacher: str) -> Outputs:
        """The outputs by the student's names, as logits where they are probabilities.

        Args:
            given: as the teacher returns them.
            teacher: its name with a space before it, or nothing, for messages.

        Raises:
            RecipeError: an output that is not there, or should be probabilities and is not.
        """
        named = by_name(given)
        of_names = self.from_probabilities if isinstance(self.from_probabilities, tuple) else ()
        for key, names in (("outputs", self.outputs.values()), ("from_probabilities", of_names)):
            if unknown := [name for name in names if name not in named]:
                raise RecipeError(
                    f"teacher.{key}: the teacher{teacher} has no output {unknown[0]!r}"
                    f"{self._wanted_by(unknown[0])}; its outputs are {', '.join(named)}."
                )
        pairs = self.outputs or {name: name for name in named}
        read = {
            ours: self._logits(named[theirs], theirs, teacher) for ours, theirs in pairs.items()
        }
        is_alone = isinstance(given, Tensor) and not self.outputs
        return next(iter(read.values())) if is_alone else read

    @property
    def needs_names(self) -> bool:
        """Whether it asks for outputs by name."""
        return bool(self.outputs) or isinstance(self.from_probabilities, tuple)

    @property
    def suffix(self) -> str:
        """Identifies it; nothing where outputs are read as they are."""
        kinds = self.from_probabilities
        of = f" as logits of {', '.join(kinds)}" if isinstance(kinds, tuple) and kinds else ""
        as_logits = " as logits" if kinds is True else of
        mapped = f" {json.dumps(dict(self.outputs))}" if self.outputs else ""
        return f"{as_logits}{mapped}"

    def of_teacher(self, name: str | None) -> str | None:
        """The teacher's name of an output, by the student's."""
        return self.outputs.get(name, name) if name is not None else None

    def _logits(self, output: Tensor, name: str, teacher: str) -> Tensor:
        kinds = self.from_probabilities
        if kinds is False or (isinstance(kinds, tuple) and name not in kinds):
            return output
        try:
            return logits_of(output)
        except DataError as error:
            what, cure = f"the teacher{teacher} gives none", "leave the key out"
            if isinstance(kinds, tuple) or self.outputs:
                what, cure = f"{what} in {name!r}", "name the outputs that are: [NAME, ...]"
            raise RecipeError(f"teacher.from_probabilities: {what}: {error}; {cure}.") from error

    def _wanted_by(self, name: str) -> str:
        ours = [one for one, theirs in self.outputs.items() if theirs == name]
        return f", from which {ours[0]!r} of the student is to learn" if ours else ""


#: Of a teacher whose outputs have the student's names and are no probabilities.
AS_IT_IS = Reading()
