"""Own parts that are unusual callables: which keys they take, and what is said of the unusable."""

from __future__ import annotations

import enum
import functools
import math
import re
from collections import namedtuple
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import BaseModel, Field, field_validator
from torch import nn

from compress.config.own_parts import OwnPart, Role, described
from compress.config.references import CodeReferences
from compress.errors import CodeReferenceError, CompressError, RecipeError

pytestmark = pytest.mark.fast

LOSS = Role("loss", ("student", "teacher", "labels"), ("kind", "weight"))
MAKER = Role("task", reserved=("name", "limit"), makes=True)


def part(found: Any, role: Role = LOSS) -> OwnPart:
    return OwnPart("mine:part", found, role)


def said(found: Any, options: dict[str, Any], role: Role = LOSS) -> str:
    """The first problem with some options, with its path."""
    _, problems = part(found, role).checked(options)
    return f"{problems[0].path}: {problems[0].text}" if problems else ""


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Slotted:
    __slots__ = ("margin",)

    def __init__(self, margin: float = 0.5) -> None:
        self.margin = margin

    def __call__(self, student, teacher, labels):
        return student - self.margin


class Callable3:
    scale = 2

    def __call__(self, student, teacher, labels, *, margin: float = 0.5):
        return self.scale * student - margin


class Static:
    @staticmethod
    def __call__(student, teacher, labels):
        return student


@dataclass
class WithInitVar:
    margin: InitVar[float]
    doubled: float = field(init=False)

    def __post_init__(self, margin: float) -> None:
        self.doubled = 2 * margin

    def __call__(self, student, teacher, labels):
        return student - self.doubled


class Tupled(NamedTuple):
    margin: float = 0.5

    def __call__(self, student, teacher, labels):
        return student - self.margin


class Settings(BaseModel):
    margin: float = Field(default=0.5, alias="lambda")

    @field_validator("margin")
    @classmethod
    def _small(cls, margin: float) -> float:
        if margin > 1:
            raise ValueError("a margin is at most 1")
        return margin

    def __call__(self, student, teacher, labels):
        return student - self.margin


class Breaks(BaseModel):
    margin: float = 0.5

    @field_validator("margin")
    @classmethod
    def _no(cls, margin: float) -> float:
        raise TypeError("not\ntoday")

    def __call__(self, student, teacher, labels):
        return student


def keyword_only(student, teacher, labels, *, margin: float):
    return student - margin


def any_keys(student, teacher, labels, **options):
    return student - options["margin"]


def any_arguments(*tensors, margin: float = 0.5):
    return tensors[0] - margin


def positional_only(student, teacher, labels, /, margin: float = 0.5):
    return student - margin


def optional_weight(student, teacher, labels, weight=1.0, margin: float = 0.5):
    return weight * student - margin


def unresolvable(student, teacher, labels, margin: NoSuchName = 0.5):  # noqa: F821
    return student - margin


WORKS = {
    "a lambda with a default": lambda student, teacher, labels, margin=0.5: student - margin,
    "a partial": functools.partial(lambda student, teacher, labels, k, margin: k * student - margin, k=1),  # noqa: E501
    "a partial of a class": functools.partial(Slotted),
    "a class with slots": Slotted,
    "an object": Callable3(),
    "a method": Callable3().__call__,
    "a class with an InitVar": WithInitVar,
    "a named tuple": Tupled,
    "a keyword": keyword_only,
    "any keys": any_keys,
    "any arguments": any_arguments,
    "positional only": positional_only,
    "a reserved key with a default": optional_weight,
    "an annotation that is not there": unresolvable,
}  # fmt: skip


@pytest.mark.parametrize("what", WORKS)
def test_a_key_reaches_unusual_callables(what):
    bound = part(WORKS[what]).bound({"margin": 0.25}, "here")
    expected = 1.5 if what == "a class with an InitVar" else 1.75
    expected = 3.75 if what in ("an object", "a method") else expected
    assert bound(2.0, None, None) == expected


def test_an_alias_is_the_key():
    assert part(Settings).bound({"lambda": 0.25}, "here")(2.0, None, None) == 1.75
    assert "takes lambda" in said(Settings, {"margin": 0.25})


def test_a_class_whose_call_is_static_is_called():
    assert part(Static).bound({}, "here")(2.0, None, None) == 2.0


async def waits(student, teacher, labels):
    return student


def yields(student, teacher, labels):
    yield student


class YieldsWhenCalled:
    def __call__(self, student, teacher, labels):
        yield student


class NotCallable:
    pass


class TakesTwo:
    def __call__(self, student, teacher):
        return student


class TakesFour:
    def __call__(self, student, teacher, labels, batch):
        return student


class Module(nn.Module):
    def __init__(self, margin: float = 1.0):
        super().__init__()
        self.margin = margin

    def forward(self, student, teacher, labels):
        return student - self.margin


class ModuleOfOne(nn.Module):
    def forward(self, x):
        return x


def takes_two(student, teacher):
    return student


def positional_key(student, teacher, labels, margin, /):
    return student - margin


def named_weight(student, teacher, labels, weight):
    return weight * student


UNUSABLE = {
    "async": (waits, "asynchronous or a generator, and gives no value .*write it with def"),
    "a generator": (yields, "asynchronous or a generator"),
    "a partial of a generator": (functools.partial(yields), "asynchronous or a generator"),
    "a class of generators": (YieldsWhenCalled, "asynchronous or a generator"),
    "a class without a call": (
        NotCallable,
        r"objects of mine:part cannot be called; give it __call__\(self, student, te",
    ),
    "a class that takes two": (
        TakesTwo,
        r"an object of mine:part is called with \(student, teacher, labels\), and takes st",
    ),
    "a class that takes four": (TakesFour, r"an object .* and needs batch as well"),
    "a torch module of one": (
        ModuleOfOne,
        r"an object of mine:part is called with \(student, teacher, labels\), and takes x",
    ),
    "a function of two": (takes_two, r"called with \(student, teacher, labels\), and takes s"),
    "a function of none": (lambda: 1, "and takes nothing"),
    "a key by position": (positional_key, "'margin' of mine:part is positional only, so"),
    "a key of the block": (named_weight, "'weight' of mine:part is a key of every loss, so"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNUSABLE)
def test_what_cannot_be_used_is_one_sentence(what):
    found, message = UNUSABLE[what]
    with pytest.raises(RecipeError, match=f"^here: .*{message}"):
        part(found).bound({}, "here")
    assert part(found).unusable


def test_the_forward_of_a_torch_module_is_what_is_called():
    assert part(Module).bound({"margin": 0.5}, "here")(2, None, None) == 1.5


def typed(
    student,
    teacher,
    labels,
    whole: int = 1,
    number: float = 1.0,
    flag: bool = False,
    text: str = "",
    choice: Literal["mean", "sum"] = "mean",
    maybe: int | None = None,
    sloppy: int = None,  # noqa: RUF013
    pair: tuple[int, float] = (1, 2.0),
    rates: list[float] = [],  # noqa: B006
    by_name: dict[str, int] = {},  # noqa: B006
    color: Color = Color.RED,
    bounded: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    settings: Settings = None,
    network: nn.Module = None,
    free=None,
):
    """Everything that an annotation may be."""


TAKEN = {
    "whole": [3, -1, 0],
    "number": [3, 0.5, -1e30],
    "flag": [True, False],
    "text": ["", "3"],
    "choice": ["sum"],
    "maybe": [None, 3],
    "sloppy": [None, 3],
    "pair": [[1, 2]],
    "rates": [[], [1, 0.5]],
    "by_name": [{}, {"a": 1}],
    "color": ["blue"],
    "bounded": [0, 0.25],
    "settings": [{"lambda": 0.25}, None],
    "network": [None, "anything", 3],
    "free": [None, 3, "x", [1, {"a": None}]],
}
REFUSED = {
    "whole": [True, 0.5, 1.0, "3", None, [1]],
    "number": [True, "0.5", None, math.nan, math.inf],
    "flag": [0, 1, "yes", None],
    "text": [3, True, ["a"]],
    "choice": ["median", 1],
    "maybe": [0.5, "x"],
    "sloppy": [0.5],
    "pair": [[1], [1, 2, 3], ["a", 2]],
    "rates": [[True], ["1"], 3, [1.0, math.inf]],
    "by_name": [{"a": 0.5}, [1]],
    "color": ["green", 1],
    "bounded": [1, -0.5, math.nan],
    "settings": [{"margin": 0.25, "lambda": "x"}, {"lambda": 3}],
    "free": [math.nan, {"a": [1.0, -math.inf]}],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, some in TAKEN.items() for v in some])
def test_values_of_the_annotated_type_are_taken(key, value):
    assert said(typed, {key: value}) == ""


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, some in REFUSED.items() for v in some])
def test_values_of_another_type_are_refused_with_the_key(key, value):
    message = said(typed, {key: value})
    assert message.startswith(f"('{key}',")
    assert re.search("should|at most 1|missing|give", message)
    assert "\n" not in message


def test_a_place_inside_a_list_is_named():
    with pytest.raises(RecipeError, match=r"^here.rates\[1\]: should be a valid number; got 'x'"):
        part(typed).bound({"rates": [1, "x"]}, "here")


def files(
    student,
    teacher,
    labels,
    file: Path,
    more: list[Path] = (),
    name: str = "",
    maybe: Path | None = None,
):
    """Paths of several kinds."""


class Files(BaseModel):
    file: Path

    def __call__(self, student, teacher, labels):
        return student


def test_paths_are_relative_to_the_recipe(tmp_path):
    given = {"file": "a", "more": ["b", "/c"], "name": "a", "maybe": None}
    values, problems = part(files).checked(given, tmp_path)
    assert not problems
    assert values["file"] == tmp_path / "a"
    assert values["more"] == [tmp_path / "b", Path("/c")]
    assert (values["name"], values["maybe"]) == ("a", None)
    again, _ = part(files).checked(values)
    assert again == values
    assert part(Files).checked({"file": "a"}, tmp_path)[0] == {"file": tmp_path / "a"}


def test_a_validator_of_ones_own_is_heard():
    with pytest.raises(RecipeError, match=r"^here\.lambda: a margin is at most 1\.$"):
        part(Settings).bound({"lambda": 3}, "here")
    with pytest.raises(RecipeError, match=r"^here: mine:part failed with TypeError at .*: not tod"):
        part(Breaks).bound({"margin": 1}, "here")


def test_a_maker_gives_what_it_makes_or_what_its_object_gives():
    @dataclass
    class Makes:
        size: int

        def __call__(self) -> list[int]:
            return [self.size]

    class Is(list):
        def __init__(self, size: int) -> None:
            super().__init__([size])

    for found in (lambda size: [size], Makes, Is, functools.partial(Makes)):
        assert part(found, MAKER).product({"size": 3}, list, "here") == [3]
    assert type(part(NotCallable, MAKER).product({}, list, "here")) is NotCallable
    with pytest.raises(CodeReferenceError, match=r"here: failed with ZeroDivisionError at .*zero"):
        part(lambda: 1 / 0, MAKER).product({}, list, "here")


def test_a_class_that_leaves_is_one_sentence():
    def leaves(self):
        raise SystemExit(3)

    found = type("Leaves", (), {"__init__": leaves, "__call__": lambda self, s, t, y: s})
    with pytest.raises(CodeReferenceError, match=r"here: failed with SystemExit at .*: 3\."):
        part(found).bound({}, "here")


def test_an_error_of_this_tools_own_passes_through():
    def stops():
        raise RecipeError("as it is.")

    with pytest.raises(RecipeError, match=r"^as it is\.$"):
        part(stops, MAKER).product({}, list, "here")


def test_a_callable_that_does_not_tell_what_it_takes_is_called():
    references = CodeReferences.of("builtins")
    own = OwnPart.named("builtins:dict", references, "x", MAKER)
    assert own.product({"a": 1}, dict, "x") == {"a": 1}
    own = OwnPart.named("builtins:int", references, "x", MAKER)
    with pytest.raises(CodeReferenceError, match="x: failed with TypeError"):
        own.product({"a": 1}, int, "x")


def test_a_name_that_is_a_module_is_refused():
    with pytest.raises(CodeReferenceError, match="'os:path' is a module, which cannot be called"):
        OwnPart.named("os:path", CodeReferences.of("os"), "here", LOSS)


def test_a_part_is_described_with_its_options():
    assert described("m:f", {}) == "m:f"
    assert described("m:f", {"a": 0.5, "b": "x"}) == "m:f (a: 0.5, b: 'x')"
    assert len(described("m:f", {"a": "x" * 5000, "b": list(range(5000))})) < 250


def test_many_keys_are_listed_in_one_short_sentence():
    fields = [f"key_{number}" for number in range(200)]
    found = namedtuple("found", fields)
    with pytest.raises(CompressError) as caught:
        part(found, MAKER).bound(dict.fromkeys([*fields, "other"], 1), "here")
    assert len(str(caught.value)) < 400
