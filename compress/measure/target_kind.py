"""TargetKind: what a kind of target says of itself, for recipes and for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, get_args

from pydantic import BaseModel

from compress.config.settings import Settings
from compress.measure.target import Target

__all__ = ["NAME_PATTERN", "TargetKind"]

#: Of a target's name, which is a part of file names.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class TargetKind(Settings):
    """The settings of one kind of target: its fields are the keys of a block in ``targets:``.

    ``--target KIND:PLACE`` describes one, too: ``place`` is what PLACE is called in help and
    errors (empty where the kind takes none), ``place_key`` the key that it sets, and
    ``is_place_needed`` whether it must be there. ``options`` are the other keys that options of
    the command line may set.
    """

    place: ClassVar[str] = ""
    place_key: ClassVar[str] = ""
    is_place_needed: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """Unique within a recipe."""

    @classmethod
    def target_type(cls) -> type[BaseModel]:
        """The class of the target itself; its fields are these, and perhaps others."""
        raise NotImplementedError

    def target(self) -> Target:
        """The target that these settings describe."""
        return self._made(self.model_dump())

    @classmethod
    def kind_name(cls) -> str:
        """As ``kind:`` and ``--target`` have it."""
        return str(get_args(cls.model_fields["kind"].annotation)[0])

    @classmethod
    def spelling(cls) -> str:
        """How ``--target`` is spelled for this kind, as in ``ssh:HOST``."""
        if not cls.place:
            return cls.kind_name()
        place = f":{cls.place}" if cls.is_place_needed else f"[:{cls.place}]"
        return f"{cls.kind_name()}{place}"

    @classmethod
    def from_command_line(cls, place: str, settings: Mapping[str, object]) -> Target:
        """The target at ``place``, which may be empty, with further ``settings`` by key.

        Raises:
            pydantic.ValidationError: a setting is out of its bounds.
        """
        named = {cls.place_key: place} if place else {}
        return cls._made({**settings, **named})

    @classmethod
    def _made(cls, settings: Mapping[str, object]) -> Target:
        made = cls.target_type().model_validate(settings)
        assert isinstance(made, Target)
        return made
