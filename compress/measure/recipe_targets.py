"""The kinds of target that recipes and ``--target`` know, one file each.

A new one is a file with a subclass of :class:`.target_kind.TargetKind`, and a line in
:data:`KINDS`. One that is reached over a shell has that in its file as well; see :mod:`.remote`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Discriminator, Tag

from compress.config.references import is_reference
from compress.measure.local import LocalSettings
from compress.measure.own_target import OwnTargetSettings
from compress.measure.remote.adb import AdbSettings
from compress.measure.remote.ssh import SshSettings
from compress.measure.target_kind import TargetKind
from compress.quoting import shown

__all__ = ["KINDS", "LocalSettings", "TargetSettings", "check_blocks", "spelled"]

#: In the order in which sentences name them; a block without ``kind`` is of the first.
KINDS: tuple[type[TargetKind], ...] = (
    LocalSettings,
    SshSettings,
    AdbSettings,
)

_OWN = "own"


def spelled(words: list[str]) -> str:
    """Alternatives in a sentence, as in ``local, ssh or adb``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def check_blocks(given: Any) -> Any:
    """The targets of a recipe, seen to be settings and no objects; for pydantic.

    Raises:
        ValueError: they are no list, or one of them is a target itself.
    """
    is_list = isinstance(given, (list, tuple))
    problem = (
        "" if is_list else f"is a list of blocks, such as [{{kind: local}}]; got {shown(given)}"
    )
    for one in given if is_list else ():
        if not isinstance(one, (dict, TargetKind, OwnTargetSettings)):
            problem = (
                "a recipe has blocks such as {kind: local, threads: 2}, and a target that is an "
                f"object goes to run(..., targets=[...]); got {shown(one)}"
            )
    if problem:
        raise ValueError(problem)
    return given


def _kind_of(block: Any) -> Any:
    kind = getattr(block, "kind", None)
    if isinstance(block, dict):
        kind = block.get("kind", KINDS[0].kind_name())
    return _OWN if isinstance(kind, str) and is_reference(kind) else kind


if TYPE_CHECKING:
    TargetSettings = TargetKind | OwnTargetSettings
else:
    _TAGGED = [Annotated[kind, Tag(kind.kind_name())] for kind in KINDS]
    #: A device and a runtime: the settings of any kind, or of a target of one's own.
    TargetSettings = Annotated[
        Union[(*_TAGGED, Annotated[OwnTargetSettings, Tag(_OWN)])],
        Discriminator(
            _kind_of,
            custom_error_type="target_kind",
            custom_error_message=(
                f"kind is {spelled([kind.kind_name() for kind in KINDS])}, or module:name for one "
                "of your own"
            ),
        ),
    ]
