"""Own parts: functions and classes of the user's that a recipe names, and the keys that reach them.

A loss, an importance, a task, an architecture, a teacher, a target or a stage of one's own is named
``module:name``. It is a function, which gets the further keys of its block as keyword arguments
beside what it is called with; or a class, which is made of these keys once. Keys and the types of
their values are checked against the signature before anything is called.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError

from compress.config.annotations import Key, keys_of_model, types_of
from compress.config.clauses import clauses
from compress.config.recipe_text import Path, dotted
from compress.config.references import CodeReferences
from compress.errors import CodeReferenceError, CompressError, RecipeError, SettingsError, in_words
from compress.quoting import clipped, shown

__all__ = ["OwnPart", "Problem", "Role", "described"]

_MOST_LISTED = 200
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Role:
    """What a kind of own part is called with.

    Args:
        noun: of the kind: ``loss``.
        arguments: names of what it is called with, in order, for sentences; their number counts.
        reserved: keys of the block that are no keys of the part.
        makes: whether calling it makes something, such as a task, that is then used: a class is
            then used as it is, and need not be callable.
        base: classes below this one follow its protocol, and are not called.
    """

    noun: str
    arguments: tuple[str, ...] = ()
    reserved: tuple[str, ...] = ()
    makes: bool = False
    base: type | None = None


@dataclass(frozen=True)
class Problem:
    """What is wrong with one key: its path from the block (empty: the block itself), a clause."""

    path: Path
    text: str


@dataclass(frozen=True)
class OwnPart:
    """A function or a class with the keys that it takes.

    Args:
        reference: as sentences name it: ``module:name``.
        found: what is there.
        role: what it is called with.
        fixed: what its class gets beside the options.
    """

    reference: str
    found: Callable[..., Any]
    role: Role = field(default_factory=lambda: Role("part"))
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def named(cls, reference: str, references: CodeReferences, where: str, role: Role) -> OwnPart:
        """The part that ``reference`` names.

        Raises:
            CodeReferenceError: not allowed, not importable, no such name, or not callable.
        """
        return cls(reference, references.resolve(reference, where), role)

    @property
    def own_class(self) -> type | None:
        """The class that it is, or is a partial of; ``None`` where it is a function."""
        found = _unwrapped(self.found)
        return found if isinstance(found, type) else None

    @property
    def follows_base(self) -> bool:
        """Whether it is a class below the one that the role names."""
        base, own = self.role.base, self.own_class
        return base is not None and own is not None and issubclass(own, base)

    @property
    def unusable(self) -> str:
        """Why it cannot be used whatever its keys are, as a clause; empty where it can."""
        return self._signature.unusable

    @property
    def keys(self) -> Mapping[str, Key]:
        """The keys that it takes, in order, by name."""
        return self._signature.keys

    def checked(
        self, options: Mapping[str, Any], folder: FilePath | None = None
    ) -> tuple[dict[str, Any], list[Problem]]:
        """The options in the types that annotations say, and what is wrong with them.

        Args:
            options: plain data, by key.
            folder: what relative paths are relative to; ``None`` leaves them.
        """
        signature = self._signature
        if signature.unusable:
            return dict(options), [Problem((), signature.unusable)]
        values, problems = dict(options), []
        for name, value in options.items():
            key = signature.keys.get(name)
            if key is None and not signature.takes_any:
                problems.append(Problem((name,), self._unknown(name)))
                continue
            found, wrong = (key or Key(name)).read(value, folder)
            values[name] = found
            problems += [Problem((name, *place), text) for place, text in wrong]
        problems += [
            Problem((), f"{self.reference} needs the key {key.name!r}")
            for key in signature.keys.values()
            if key.is_required and key.name not in options
        ]
        return values, problems or self._refusals(values)

    def bound(self, options: Mapping[str, Any], where: str) -> Callable[..., Any]:
        """What is called: the function with its options, or an object of the class.

        Args:
            options: plain data, by key.
            where: the place, for sentences.

        Raises:
            RecipeError: a key that it does not take, or needs, or a value of another type.
            CodeReferenceError: it cannot be used, or its class failed.
        """
        values, problems = self.checked(options)
        for problem in problems:
            place = f"{where}.{dotted(problem.path)}" if problem.path else where
            raise RecipeError(f"{place}: {problem.text}.")
        if self.own_class is None:
            return functools.partial(self.found, **values) if values else self.found
        made: Callable[..., Any] = _called(self._make(values), where)
        return made

    def product(self, options: Mapping[str, Any], kind: type, where: str) -> Any:
        """What a part that makes something makes: an object of ``kind``, if it does as it should.

        An object of a class that is none itself is called, without arguments.

        Raises:
            RecipeError, CodeReferenceError: as :meth:`bound`; or what is called failed.
        """
        made = self.bound(options, where)
        if self.own_class is not None and (isinstance(made, kind) or not callable(made)):
            return made
        return _called(made, where)

    def _make(self, values: Mapping[str, Any]) -> Callable[[], Any]:
        return functools.partial(self.found, **values, **self.fixed)

    def _refusals(self, values: Mapping[str, Any]) -> list[Problem]:
        """What a class of settings, whose objects hold values and no more, says of its values."""
        if self.own_class is None or not issubclass(self.own_class, BaseModel):
            return []
        try:
            self._make(values)()
        except ValidationError as error:
            return [Problem(*one) for one in clauses(error)]
        except SettingsError as error:  # of a class that follows one of ours
            return [Problem(*one) for one in error.problems]
        except (Exception, SystemExit) as error:
            return [Problem((), f"{self.reference} failed with {in_words(error)}")]
        return []

    def _unknown(self, name: str) -> str:
        keys = [*self._signature.keys, *self.role.reserved]
        near = difflib.get_close_matches(clipped(name), keys, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(self._signature.keys)
        takes = f"it takes {clipped(known, _MOST_LISTED)}" if known else "it takes no options"
        return f"{self.reference} does not take {shown(name)}; {meant}{takes}"

    @functools.cached_property
    def _signature(self) -> _Signature:
        return _signature_of(self)


@dataclass(frozen=True)
class _Signature:
    keys: Mapping[str, Key]
    takes_any: bool = False
    unusable: str = ""


def _called(make: Callable[..., Any], where: str) -> Any:
    try:
        return make()
    except CompressError:
        raise
    except (Exception, SystemExit) as error:
        raise CodeReferenceError(f"{where}: failed with {in_words(error)}.") from error


def described(reference: str, options: Mapping[str, Any]) -> str:
    """A part with its options, for a sentence: ``mine:loss (margin: 0.2)``."""
    listed = ", ".join(f"{name}: {shown(value)}" for name, value in options.items())
    return f"{reference} ({clipped(listed, _MOST_LISTED)})" if options else reference


def _signature_of(part: OwnPart) -> _Signature:
    role, reference = part.role, part.reference
    if _gives_no_value(part):
        text = f"{reference} is asynchronous or a generator, and gives no value when it is called"
        return _Signature({}, unusable=f"{text}; write it with def and return")
    if part.own_class is not None and not (role.makes or part.follows_base):
        problem = _not_called(part)
        if problem:
            return _Signature({}, unusable=problem)
    if part.own_class is not None and issubclass(part.own_class, BaseModel):
        return _keys_of_model(part, part.own_class)
    try:
        parameters = list(inspect.signature(part.found).parameters.values())
    except (TypeError, ValueError):  # of a callable without a signature: it is checked when called
        return _Signature({}, takes_any=True)
    if part.own_class is None:
        problem = _mismatch(parameters, role, reference)
        if problem:
            return _Signature({}, unusable=problem)
        parameters = list(_beyond(parameters, len(role.arguments)))
    return _keys_of(part, parameters)


def _keys_of_model(part: OwnPart, model: type[BaseModel]) -> _Signature:
    keys = keys_of_model(model)
    for name in part.role.reserved:
        key = keys.pop(name, None)
        if key is not None and key.is_required and not part.follows_base:
            return _Signature({}, unusable=_unreachable(part, name))
    return _Signature(keys, takes_any=model.model_config.get("extra") == "allow")


def _keys_of(part: OwnPart, parameters: Sequence[inspect.Parameter]) -> _Signature:
    """The keys among the parameters that no argument fills."""
    keys, types = dict[str, Key](), types_of(_unwrapped(part.found))
    for one in parameters:
        if one.kind in _VARIABLE:
            continue
        is_required = one.default is one.empty
        if one.name in part.role.reserved or one.kind is one.POSITIONAL_ONLY:
            if is_required and not part.follows_base:
                return _Signature({}, unusable=_unreachable(part, one.name))
            continue
        keys[one.name] = Key(one.name, types.get(one.name, Any), is_required, one.default)
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    return _Signature(keys, takes_any)


def _unreachable(part: OwnPart, name: str) -> str:
    role = part.role
    why = "is positional only" if name not in role.reserved else f"is a key of every {role.noun}"
    return f"the argument {name!r} of {part.reference} {why}, so that no key reaches it"


def _beyond(parameters: Sequence[inspect.Parameter], count: int) -> Iterator[inspect.Parameter]:
    """The parameters that ``count`` positional arguments leave."""
    for parameter in parameters:
        if parameter.kind in _POSITIONAL and count > 0:
            count -= 1
        else:
            yield parameter


def _mismatch(parameters: Sequence[inspect.Parameter], role: Role, reference: str) -> str:
    """Why what has these parameters cannot be called with the arguments, as a clause."""
    positional = [one.name for one in parameters if one.kind in _POSITIONAL]
    takes_all = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if takes_all or len(positional) >= len(role.arguments):
        return ""
    takes = ", ".join(positional) or "nothing"
    return f"{reference} is called with ({', '.join(role.arguments)}), and takes {takes}"


def _method_called(own: type) -> Any:
    """What an object of the class runs when it is called; ``None`` where it cannot be.

    Not the attribute of the class, which its metaclass has: calling a class makes an object.
    """
    definer = next((one for one in own.__mro__ if "__call__" in vars(one)), None)
    if definer is None:
        return None
    if definer.__module__.startswith("torch."):  # a module's takes anything, and hands it over
        return getattr(own, "forward", None)
    return vars(definer)["__call__"]


def _not_called(part: OwnPart) -> str:
    """Why an object of the class cannot be called with the arguments, as a clause."""
    assert part.own_class is not None
    arguments = ", ".join(part.role.arguments)
    own = _method_called(part.own_class)
    if own is None:
        return f"objects of {part.reference} cannot be called; give it __call__(self, {arguments})"
    try:
        parameters = list(inspect.signature(own).parameters.values())
    except (TypeError, ValueError):
        return ""
    parameters = list(_beyond(parameters, 0 if isinstance(own, staticmethod) else 1))
    problem = _mismatch(parameters, part.role, f"an object of {part.reference}")
    if problem:
        return problem
    needed = [
        one.name
        for one in _beyond(parameters, len(part.role.arguments))
        if one.default is one.empty and one.kind not in _VARIABLE
    ]
    called = f"an object of {part.reference} is called with ({arguments})"
    return f"{called}, and needs {', '.join(needed)} as well" if needed else ""


def _gives_no_value(part: OwnPart) -> bool:
    if part.follows_base:
        return False
    found = _unwrapped(part.found)
    called = found if inspect.isroutine(found) else getattr(found, "__call__", found)  # noqa: B004
    return (
        inspect.iscoroutinefunction(called)
        or inspect.isgeneratorfunction(called)
        or inspect.isasyncgenfunction(called)
    )


def _unwrapped(found: Any) -> Any:
    while isinstance(found, functools.partial):
        found = found.func
    return found
