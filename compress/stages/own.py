"""A stage that is a function of one's own; a class is a subclass of ``Stage`` itself."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict

from compress.candidate import Candidate
from compress.config.fields import Name
from compress.config.own_parts import Role
from compress.config.own_settings import OwnSettings
from compress.stage import Context, Effect, Stage

__all__ = ["FunctionStage"]


class FunctionStage(OwnSettings, Stage):
    """A stage that is a function, ``kind: module:name``, of a candidate, the context and its keys.

    It returns a new candidate, of which anything may have changed.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    role: ClassVar[Role] = Role("stage", ("candidate", "context"), ("kind", "label"))
    effects: ClassVar[frozenset[Effect]] = frozenset(Effect)

    kind: Name
    """The function, as ``module:name``; it is followed only if the run names ``--import module``.
    """

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        """What the function makes of the candidate.

        Raises:
            RecipeError: options that it does not take.
        """
        function = self.part(context.references, self.kind).bound(self.options, self.kind)
        made: Candidate = function(candidate, context)
        return made

    def explain(self) -> str:
        """What this stage will do."""
        return self.described
