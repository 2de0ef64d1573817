"""Functions, classes and values: every edit is another digest, and nothing else is."""

import collections
import dataclasses
import datetime
import enum
import fractions
import functools
import logging
import os
import random
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.fingerprints import (
    FileDigestCache,
    Unstable,
    code_fingerprint,
    content_walk,
    data_fingerprint,
)

WRAPS = "import functools\ndef d(g):\n @functools.wraps(g)\n def w(*a): return g(*a)\n return w\n"
NEGATES = WRAPS.replace("return g(", "return -g(")
DISPATCHES = "import functools\n@functools.singledispatch\ndef f(o): return 0\n"
GRADIENT = "import torch\nclass A(torch.autograd.Function):\n @staticmethod\n def forward(c, x):"

# Before and after; the metric is ``f``.
EDITS = {
    "operator": ("def f(o, l): return o == l", "def f(o, l): return o != l"),
    "constant": ("def f(o): return o * 2", "def f(o): return o * 3"),
    "type of a constant": ("def f(o): return o * 2", "def f(o): return o * 2.0"),
    "sign of zero": ("def f(o): return o * 0.0", "def f(o): return o * -0.0"),
    "text that is its docstring too": (
        "def f(o):\n 'a'\n return 'a'",
        "def f(o):\n 'b'\n return 'b'",
    ),
    "attribute": ("def f(o): return o.min()", "def f(o): return o.max()"),
    "global": ("K = 1\ndef f(o): return o + K", "K = 2\ndef f(o): return o + K"),
    "helper": (
        "def g(o): return o + 1\ndef f(o): return g(o)",
        "def g(o): return o + 2\ndef f(o): return g(o)",
    ),
    "helper of a helper": (
        "K = 1\ndef h(o): return o + K\ndef g(o): return h(o)\ndef f(o): return g(o)",
        "K = 2\ndef h(o): return o + K\ndef g(o): return h(o)\ndef f(o): return g(o)",
    ),
    "helper in a comprehension": (
        "def g(o): return 1\ndef f(o): return [g(x) for x in o]",
        "def g(o): return 2\ndef f(o): return [g(x) for x in o]",
    ),
    "which helper": (
        "def g(o): return 1\ndef h(o): return 2\ndef f(o): return g(o), h(o)",
        "def g(o): return 1\ndef h(o): return 2\ndef f(o): return h(o), g(o)",
    ),
    "closure": (
        "def m(k):\n return lambda o: o + k\nf = m(1)",
        "def m(k):\n return lambda o: o + k\nf = m(2)",
    ),
    "default": ("def f(o, k=1): return o + k", "def f(o, k=2): return o + k"),
    "keyword default": ("def f(o, *, k=1): return o", "def f(o, *, k=2): return o"),
    "default that is none": ("def f(o, k): return o", "def f(o, k=None): return o"),
    "name of an argument": ("def f(o, k): return o", "def f(o, j): return o"),
    "set of constants": (
        "def f(o): return o in {'a', 'b'}",
        "def f(o): return o in {'a', 'c'}",
    ),
    "nested function": (
        "def f(o):\n def g(): return 1\n return g()",
        "def f(o):\n def g(): return 2\n return g()",
    ),
    "handler": (
        "def f(o):\n try: return o[0]\n except IndexError: return 0",
        "def f(o):\n try: return o[0]\n except KeyError: return 0",
    ),
    "generator": ("def f(o): return [o]", "def f(o): yield o"),
    "name set by hand": (
        "def f(o): return 1\nf.__name__ = f.__qualname__ = 'right'",
        "def f(o): return 2\nf.__name__ = f.__qualname__ = 'right'",
    ),
    "module set by hand": (
        "def f(o): return 1\nf.__module__ = 'torch.nn.functional'\nf.__qualname__ = 'relu'",
        "def f(o): return 2\nf.__module__ = 'torch.nn.functional'\nf.__qualname__ = 'relu'",
    ),
    "class whose module is set by hand": (
        "class f:\n x = 1\nf.__module__ = 'torch'\nf.__qualname__ = 'Tensor'",
        "class f:\n x = 2\nf.__module__ = 'torch'\nf.__qualname__ = 'Tensor'",
    ),
    "attribute of the function": (
        "def f(o): return o\nf.higher_is_better = True",
        "def f(o): return o\nf.higher_is_better = False",
    ),
    "decorated": (
        f"{WRAPS}@d\ndef f(o): return 1",
        f"{WRAPS}@d\ndef f(o): return 2",
    ),
    "decorator": (
        f"{WRAPS}@d\ndef f(o): return 1",
        f"{NEGATES}@d\ndef f(o): return 1",
    ),
    "wraps a library's function": (
        "import functools, torch\n@functools.wraps(torch.nn.functional.relu)\ndef f(o): return 1",
        "import functools, torch\n@functools.wraps(torch.nn.functional.relu)\ndef f(o): return 2",
    ),
    "cached": (
        "import functools\n@functools.cache\ndef f(o): return 1",
        "import functools\n@functools.cache\ndef f(o): return 2",
    ),
    "partial": (
        "import functools\ndef g(o, k): return o\nf = functools.partial(g, k=1)",
        "import functools\ndef g(o, k): return o\nf = functools.partial(g, k=2)",
    ),
    "function of a partial": (
        "import functools\ndef g(o, k): return 1\nf = functools.partial(g, 1)",
        "import functools\ndef g(o, k): return 2\nf = functools.partial(g, 1)",
    ),
    "which function of a library": (
        "import torch\ndef f(o): return torch.relu(o)",
        "import torch\ndef f(o): return torch.tanh(o)",
    ),
    "a library's function": (
        "from torch.nn.functional import relu as g\ndef f(o): return g(o)",
        "from torch.nn.functional import gelu as g\ndef f(o): return g(o)",
    ),
    "built-in function": ("g = min\ndef f(o): return g(o)", "g = max\ndef f(o): return g(o)"),
    "method of a value": ("f = 'a'.join", "f = 'b'.join"),
    "method": (
        "class A:\n def __call__(self, o): return 1\nf = A()",
        "class A:\n def __call__(self, o): return 2\nf = A()",
    ),
    "attribute of an instance": (
        "class A:\n def __init__(self, k): self.k = k\nf = A(1)",
        "class A:\n def __init__(self, k): self.k = k\nf = A(2)",
    ),
    "slot": (
        "class A:\n __slots__ = ('k',)\nf = A()\nf.k = 1",
        "class A:\n __slots__ = ('k',)\nf = A()\nf.k = 2",
    ),
    "private slot": (
        "class A:\n __slots__ = ('__k',)\n def __init__(self, k): self.__k = k\nf = A(1)",
        "class A:\n __slots__ = ('__k',)\n def __init__(self, k): self.__k = k\nf = A(2)",
    ),
    "bound method": (
        "class A:\n def g(self, o): return self.k\na = A()\na.k = 1\nf = a.g",
        "class A:\n def g(self, o): return self.k\na = A()\na.k = 2\nf = a.g",
    ),
    "class attribute": ("class f:\n k = 1", "class f:\n k = 2"),
    "base class": (
        "class B:\n def g(self): return 1\nclass f(B): pass",
        "class B:\n def g(self): return 2\nclass f(B): pass",
    ),
    "metaclass": (
        "class M(type):\n def __call__(c): return 1\nclass f(metaclass=M): pass",
        "class M(type):\n def __call__(c): return 2\nclass f(metaclass=M): pass",
    ),
    "property": (
        "class f:\n @property\n def k(self): return 1",
        "class f:\n @property\n def k(self): return 2",
    ),
    "static method": (
        "class f:\n @staticmethod\n def k(): return 1",
        "class f:\n @staticmethod\n def k(): return 2",
    ),
    "class method": (
        "class f:\n @classmethod\n def k(cls): return 1",
        "class f:\n @classmethod\n def k(cls): return 2",
    ),
    "kind of method": (
        "class f:\n @classmethod\n def k(cls): return 1",
        "class f:\n @staticmethod\n def k(cls): return 1",
    ),
    "cached property": (
        "import functools\nclass f:\n @functools.cached_property\n def k(self): return 1",
        "import functools\nclass f:\n @functools.cached_property\n def k(self): return 2",
    ),
    "call of a parent's method": (
        "class B:\n def g(self): return 1\nclass f(B):\n def g(self): return super().g()",
        "class B:\n def g(self): return 2\nclass f(B):\n def g(self): return super().g()",
    ),
    "one of two that call each other": (
        "def f(o): return g(o) if o else 0\ndef g(o): return f(o - 1)",
        "def f(o): return g(o) if o else 0\ndef g(o): return f(o - 2)",
    ),
    "recursion": (
        "def f(o): return f(o - 1) if o else 0",
        "def f(o): return f(o - 1) if o else 1",
    ),
    "dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n k: int = 1\nf = A",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n k: int = 2\nf = A",
    ),
    "member of an enumeration": (
        "import enum\nclass A(enum.Enum):\n a = 1\n b = 2\nf = A.a",
        "import enum\nclass A(enum.Enum):\n a = 1\n b = 2\nf = A.b",
    ),
    "value of another member": (
        "import enum\nclass A(enum.Enum):\n a = 1\n b = 2\nf = A",
        "import enum\nclass A(enum.Enum):\n a = 1\n b = 3\nf = A",
    ),
    "method of an enumeration": (
        "import enum\nclass A(enum.Enum):\n a = 1\n def g(self): return 1\nf = A.a",
        "import enum\nclass A(enum.Enum):\n a = 1\n def g(self): return 2\nf = A.a",
    ),
    "implementation of a generic function": (
        f"{DISPATCHES}@f.register\ndef _(o: int): return 1",
        f"{DISPATCHES}@f.register\ndef _(o: int): return 2",
    ),
    "table of functions": (
        "T = {'a': lambda o: 1}\ndef f(o): return T['a'](o)",
        "T = {'a': lambda o: 2}\ndef f(o): return T['a'](o)",
    ),
    "gradient of one's own": (
        f"{GRADIENT} return x\ndef f(o): return A.apply(o)",
        f"{GRADIENT} return -x\ndef f(o): return A.apply(o)",
    ),
    "global that is gone": ("K = 1\ndef f(o): return K", "def f(o): return K"),
}

# Two ways to write the same.
HARMLESS = {
    "comment": ("def f(o): return o", "# a comment\n\n\ndef f(o):\n    # another\n    return o"),
    "docstring": ("def f(o):\n 'one'\n return None", "def f(o):\n 'two'\n return None"),
    "docstring that is new": ("def f(o): return o, 'x'", "def f(o):\n 'two'\n return o, 'x'"),
    "name": ("def f(o): return o", "def g(o): return o\nf = g"),
    "name of a helper's variable": (
        "def g(o):\n a = o\n return a\ndef f(o): return g(o)",
        "def g(o):\n b = o\n return b\ndef f(o): return g(o)",
    ),
    "annotation": ("def f(o): return o", "def f(o: int) -> int: return o"),
    "something beside it": ("def f(o): return o", "K = 1\ndef h(): return K\ndef f(o): return o"),
    "order of methods": (
        "class f:\n def a(self): return 1\n def b(self): return 2",
        "class f:\n def b(self): return 2\n def a(self): return 1",
    ),
    "docstring of a class": ("class f:\n 'one'\n k = 1", "class f:\n 'two'\n k = 1"),
    "name of a class": ("class f:\n k = 1", "class g:\n k = 1\nf = g"),
    "class in a function": (
        "def f():\n class A:\n  def g(self): return 1\n return A",
        "\n\n\ndef f():\n\n\n class A:\n\n  def g(self): return 1\n return A",
    ),
    "order of attributes": (
        "class A: pass\nf = A()\nf.a, f.b = 1, 2",
        "class A: pass\nf = A()\nf.b, f.a = 2, 1",
    ),
    "order of a set": ("f = {'a', 'b', 'c'}", "f = {'c', 'a', 'b'}"),
    "order of a dictionary": ("f = {'a': 1, 'b': [2]}", "f = {'b': [2], 'a': 1}"),
    "cache that is filled": (
        "import functools\n@functools.cache\ndef f(o): return 1",
        "import functools\n@functools.cache\ndef f(o): return 1\nf(3)",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_another_digest(made, name):
    before, after = (code_fingerprint(made(source)["f"]) for source in EDITS[name])
    assert before == code_fingerprint(made(EDITS[name][0])["f"])
    assert before != after


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_nothing_is_the_same_digest(made, name):
    one, other = (code_fingerprint(made(source)["f"]) for source in HARMLESS[name])
    assert one == other


class Shape(pydantic.BaseModel):
    width: int = pydantic.Field(default=1, ge=0)
    _hidden: int = pydantic.PrivateAttr(default=0)


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    a: int
    b: list


class Listed(list):
    pass


def _holding(value):
    held = Listed([1])
    held.more = value
    return held


def _hidden(value):
    shape = Shape()
    shape._hidden = value
    return shape


def _drawn(generator):
    generator.random()
    return generator


# All of them differ; each line's values are alike but in one thing.
DIFFERENT = [
    *(None, True, 1, 1.0, 1 + 0j, "1", b"1", bytearray(b"1"), ..., -1, 2**70, float("inf")),
    *(0.0, -0.0, float("nan")),
    *([1], (1,), {1}, frozenset({1}), {1: None}, [[1]], [1, None], [], (), set(), {}),
    *({"a": 1}, {"a": 2}, {"b": 1}, collections.OrderedDict(a=1, b=2)),
    *(collections.OrderedDict(b=2, a=1), collections.defaultdict(list), collections.deque([1])),
    *(collections.defaultdict(dict), collections.deque([1], maxlen=3), collections.Counter("a")),
    *(["a", "bc"], ["ab", "c"], ["abc"]),
    *(list(range(100)), [float(n) for n in range(100)], list(range(99)), tuple(range(100))),
    *([*range(99), True], [*range(99), 2**80]),
    *(range(3), range(4), slice(1, 2), slice(1, 3)),
    *(Color.RED, Level.LOW, Color, Level),
    *(Point(1, 2), Point(2, 1), Pair(1, []), Pair(1, [2]), Shape(), Shape(width=2), _hidden(3)),
    *(Listed([1]), _holding(1), _holding(2)),
    *(re.compile("a"), re.compile("a", re.I), re.compile("b")),
    *(datetime.date(2020, 1, 1), datetime.date(2020, 1, 2), fractions.Fraction(1, 2)),
    *(torch.float32, torch.float16, torch.device("cpu"), np.dtype("f4"), np.dtype("f8")),
    *(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2).double(), torch.ones(2), torch.zeros(0)),
    *(torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
    *(torch.zeros(2, dtype=torch.complex64), torch.zeros(2, dtype=torch.bool), torch.tensor(0.0)),
    *(torch.zeros(2, requires_grad=True), torch.arange(4.0).view(2, 2)),
    torch.arange(4.0).view(2, 2).t(),
    *(np.zeros(2), np.zeros(2, "f4"), np.zeros(2, ">f4"), np.array(["a"]), np.array([b"a"])),
    *(np.array([1, "a"], dtype=object), np.array([1, "b"], dtype=object), np.float32(1)),
    *(np.zeros(1, [("a", "i4")]), np.zeros(1, [("b", "i4")]), np.ones(1, [("a", "i4")])),
    *(np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[0, 0])),
    *(random.Random(1), random.Random(2), _drawn(random.Random(1))),
    *(np.random.default_rng(1), np.random.default_rng(2), _drawn(np.random.default_rng(1))),
    *(np.random.RandomState(1), np.random.RandomState(2)),
    *(torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)),
    *(nn.ReLU(), nn.LeakyReLU(0.1), nn.LeakyReLU(0.2), nn.CrossEntropyLoss()),
    *(nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss(weight=torch.ones(2))),
    nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])),
    *(F.relu, F.gelu, F.cross_entropy, torch.relu, torch.Tensor.relu, np.mean, np.add, np.subtract),
    *(len, str.upper, str.lower, functools.partial(F.gelu), F.max_pool2d, F.max_pool1d),
    *(int, list, nn.Linear, nn.Conv2d, list[int], int | None, np, torch),
    *(Path("a"), Path("b"), logging.getLogger("a"), logging.getLogger("b")),
]


def test_different_values_have_different_digests():
    digests = [code_fingerprint(value) for value in DIFFERENT]
    seen = {}
    for value, digest in zip(DIFFERENT, digests, strict=True):
        assert digest not in seen, f"{value!r} and {seen.get(digest)!r}"
        seen[digest] = value
    assert digests == [code_fingerprint(value) for value in DIFFERENT]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (float("nan"), -float("nan") * -1),
        (torch.arange(6.0)[::2], torch.tensor([0.0, 2.0, 4.0])),
        (torch.arange(4.0).view(2, 2).t(), torch.tensor([[0.0, 2.0], [1.0, 3.0]])),
        (np.arange(6)[::2], np.array([0, 2, 4])),
        (np.asfortranarray(np.eye(2)), np.eye(2)),
        (nn.Parameter(torch.ones(1)), torch.ones(1, requires_grad=True)),
    ],
)
def test_equal_content_has_one_digest(one, other):
    assert code_fingerprint(one) == code_fingerprint(other)


def _looped():
    inner = []
    inner.append({"again": inner})
    return inner


def _mutual():
    class Node:
        pass

    one, other = Node(), Node()
    one.other, other.other = other, one
    one.all = {one, other}
    return one


@pytest.mark.parametrize("make", [_looped, _mutual])
def test_what_holds_itself_has_a_digest(make):
    assert code_fingerprint(make()) == code_fingerprint(make())


def test_what_is_shared_a_thousand_times_takes_no_longer(made):
    source = "def f0(o): return o\n" + "".join(
        f"def f{n}(o): return f{n - 1}(o) + f{n - 1}(o) + f{max(n - 2, 0)}(o)\n"
        for n in range(1, 60)
    )
    assert code_fingerprint(made(source)["f59"]) != code_fingerprint(made(source)["f58"])


def test_long_chains_of_functions_are_followed(made):
    source = "def f0(o): return K\n" + "".join(
        f"def f{n}(o): return f{n - 1}(o)\n" for n in range(1, 1_500)
    )
    one, other = (code_fingerprint(made(source, K=k)["f1499"]) for k in (1, 2))
    assert one != other


def test_which_functions_are_in_a_set_counts_though_all_are_known():
    f, g, h = (lambda: 1), (lambda: 2), (lambda: 3)

    def made_of(functions):
        return [f, g, h, functions]

    digests = {code_fingerprint(made_of(each)) for each in ({f, g}, {f, h}, {g, h}, {f, g, h})}
    assert len(digests) == 4
    assert code_fingerprint(made_of({f, g})) == code_fingerprint(made_of({g, f}))


def test_two_functions_of_one_code_differ_by_what_they_close_over():
    def make(scale):
        return lambda o: o * scale

    assert code_fingerprint(make(torch.ones(2))) == code_fingerprint(make(torch.ones(2)))
    assert code_fingerprint(make(torch.ones(2))) != code_fingerprint(make(torch.zeros(2)))


def test_a_loss_counts_by_its_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    before = code_fingerprint(loss)
    with torch.no_grad():
        loss[0].weight[0, 0] += 1e-6
    assert code_fingerprint(loss) != before
    loss[0].register_forward_hook(_a_hook)
    hooked = code_fingerprint(loss)
    assert hooked not in (before, code_fingerprint(nn.Sequential(loss[0], nn.Tanh())))


def _a_hook(module, inputs, output):
    return output * 2


class Counts:
    """Like torchmetrics: a state that grows, defaults, and a function that reduces."""

    def __init__(self):
        self.total = torch.zeros(1)
        self._defaults = {"total": torch.zeros(1)}
        self._reductions = {"total": torch.sum}

    def __call__(self, outputs, labels):
        self.total += 1
        return outputs


def test_an_object_with_a_state_counts_by_its_state():
    metric = Counts()
    before = code_fingerprint(metric)
    assert before == code_fingerprint(Counts())
    metric(1, 2)
    assert code_fingerprint(metric) != before


def test_a_pydantic_model_counts_by_its_fields_and_validators(made):
    source = """
        from pydantic import BaseModel, Field, field_validator
        class f(BaseModel):
            k: int = Field(default=DEFAULT, ge=LEAST)
            @field_validator("k")
            @classmethod
            def _check(cls, k): return k + STEP
    """

    def digest(default, least, step):
        text = source.replace("DEFAULT", default).replace("LEAST", least).replace("STEP", step)
        return code_fingerprint(made(text)["f"])

    variants = [("1", "0", "0"), ("2", "0", "0"), ("1", "1", "0"), ("1", "0", "1")]
    assert len({digest(*variant) for variant in variants}) == 4
    assert digest(*variants[0]) == digest(*variants[0])


def test_a_path_counts_by_the_file_there(tmp_path):
    path = tmp_path / "table.txt"
    digests = [code_fingerprint(path)]
    for content in ("a", "b"):
        path.write_text(content)
        digests.append(code_fingerprint(path, files=FileDigestCache()))
    assert len(set(digests)) == 3
    assert code_fingerprint(tmp_path) == code_fingerprint(tmp_path)


UNSTABLE = {
    "a file object": lambda: open(os.devnull),  # noqa: SIM115
    "a lock": threading.Lock,
    "a socket object": socket.socket,
    "a generator": lambda: (n for n in range(2)),
    "an iterator (list_iterator)": lambda: iter([1]),
    "an iterator (map)": lambda: map(abs, [1]),
    "a sparse_coo tensor": lambda: torch.eye(2).to_sparse(),
    "a tensor on the device meta": lambda: torch.empty(2, device="meta"),
}


@pytest.mark.parametrize("kind", UNSTABLE)
def test_what_cannot_be_known_is_named_with_its_place(kind):
    value = UNSTABLE[kind]()
    try:

        def metric(outputs):
            return outputs, value

        with pytest.raises(Unstable) as raised:
            code_fingerprint(metric, "the metric")
        assert str(raised.value).startswith(f"the metric closes over {kind} (value), ")
        with pytest.raises(Unstable, match=r"the loss holds .* \(deep\.0\), "):
            code_fingerprint({"deep": [value]}, "the loss")
    finally:
        if hasattr(value, "close"):
            value.close()


def test_the_sentence_says_what_and_why(made):
    with open(os.devnull) as log:

        def metric(outputs):
            log.write("x")
            return outputs

        with pytest.raises(Unstable) as raised:
            code_fingerprint(metric, "the metric")
        assert str(raised.value) == (
            "the metric closes over a file object (log), whose content cannot be compared between "
            "runs"
        )
        with pytest.raises(Unstable, match=r"^the value is a file object, whose content"):
            code_fingerprint(log)
        with pytest.raises(Unstable, match=r"^the loss uses a file object \(g\.log\), whose"):
            code_fingerprint(
                made("def g(o): return log\ndef f(o): return g(o)", log=log)["f"], "the loss"
            )


def test_more_that_cannot_be_known(made, monkeypatch):
    for call in ("eval('o')", "exec('o')", "globals()['K']", "__import__('os')"):
        function = made(f"def f(o): return {call}")["f"]
        name = call.partition("(")[0]
        with pytest.raises(Unstable, match=rf"the loss calls {name}\(\), which runs or reads what"):
            code_fingerprint(function, "the loss")
    deep = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(Unstable, match="the loss is nested too deeply to be compared"):
        code_fingerprint(deep, "the loss")
    monkeypatch.setattr(content_walk, "_MOST_VALUES", 1_000)
    many = [0]
    for _ in range(30):
        many = [many, many]
    with pytest.raises(Unstable, match="the loss holds over 1,000 values, too many to compare"):
        code_fingerprint(many, "the loss")


def test_objects_that_raise_are_told():
    class Odd(list):
        def __iter__(self):
            raise ValueError("no more")

    with pytest.raises(Unstable, match=r"^the loss cannot be compared \(ValueError at .*: no more"):
        code_fingerprint(Odd([1]), "the loss")


def test_compiled_code_of_no_library_is_refused(monkeypatch):
    made = type(sys)("compiled_somewhere")
    monkeypatch.setitem(sys.modules, "compiled_somewhere", made)

    class Compiled:
        __str__ = str.__str__

    Compiled.__module__ = "compiled_somewhere"
    with pytest.raises(Unstable, match="the loss is the compiled class Compiled, whose module"):
        code_fingerprint(Compiled, "the loss")


def test_a_file_may_be_renamed(module):
    source = "K = 1\ndef g(o): return o + K\nclass f:\n def __call__(self, o): return g(o)"
    one, other = module("fp_one", source), module("fp_other", f"# renamed\n\n{source}")
    assert code_fingerprint(one.f()) == code_fingerprint(other.f())


def test_a_stage_of_the_users_own_counts_by_its_source(made):
    source = """
        from typing import ClassVar, Literal
        from compress import Candidate, Context, Effect, Stage
        class f(Stage):
            effects: ClassVar[frozenset[Effect]] = frozenset({Effect.WEIGHTS})
            kind: Literal["clip"] = "clip"
            deviations: float = 3.0
            def run(self, candidate: Candidate, context: Context) -> Candidate:
                return candidate.fork()
    """
    before = code_fingerprint(made(source)["f"])
    assert before == code_fingerprint(made(source)["f"])
    for old, new in (("3.0", "4.0"), (".fork()", ""), ("WEIGHTS", "NUMERICS")):
        assert code_fingerprint(made(source.replace(old, new))["f"]) != before


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.frozensets(st.integers() | st.text(), max_size=3)
    ),
    max_leaves=8,
)


def _canonical(value):
    """The value as a text that is equal where, and only where, digests are to be."""
    if isinstance(value, dict):
        return str(sorted((key, _canonical(each)) for key, each in value.items()))
    if isinstance(value, frozenset):
        return f"set {sorted(map(repr, value))}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} {[_canonical(each) for each in value]}"
    return f"{type(value).__name__} {value!r}"


def _rebuilt(value):
    """The same, with every container made anew and in another order where it has none."""
    if isinstance(value, dict):
        return {key: _rebuilt(value[key]) for key in reversed(value)}
    if isinstance(value, frozenset):
        return frozenset(sorted(value, key=repr))
    if isinstance(value, (list, tuple)):
        return type(value)(_rebuilt(each) for each in value)
    return value


@settings(max_examples=60, deadline=None, derandomize=True)
@given(PLAIN, PLAIN)
def test_plain_values_have_one_digest_where_they_are_equal(one, other):
    is_same = code_fingerprint(one) == code_fingerprint(other)
    assert is_same == (_canonical(one) == _canonical(other))
    assert code_fingerprint(one) == code_fingerprint(_rebuilt(one))


def test_a_module_of_the_users_own_counts_by_what_is_used_of_it(module):
    helpers = module("fp_helpers", "K = 1\ndef scale(o): return o * K\ndef other(o): return o")
    user = module("fp_user", "import fp_helpers\ndef f(o): return fp_helpers.scale(o)")
    before = code_fingerprint(user.f)
    helpers.other = None
    assert code_fingerprint(user.f) == before
    helpers.K = 2
    assert code_fingerprint(user.f) != before
    del helpers.scale
    assert code_fingerprint(user.f) != before


def test_a_module_that_is_passed_on_counts_by_its_source(module):
    def digest(source):
        helpers = module("fp_helpers", source)
        user = module("fp_user", "import fp_helpers\ndef f(o): return getattr(fp_helpers, o)")
        assert user.fp_helpers is helpers
        return code_fingerprint(user.f)

    before = digest("K = 1")
    assert before == digest("# a comment\nK = 1")
    assert before != digest("K = 2")


def test_an_import_inside_counts_by_its_source_imported_or_not(module):
    function = "def f(o):\n    from fp_part import K\n    return K"
    module("fp_deep", "D = 1", imported=False)
    module("fp_part", "import fp_deep\nK = 1", imported=False)
    user = module("fp_user", function)
    before = code_fingerprint(user.f)
    assert user.f(0) == 1
    assert code_fingerprint(user.f) == before
    module("fp_deep", "D = 2", imported=False)
    assert code_fingerprint(user.f) != before
    module("fp_deep", "D = 1", imported=False)
    assert code_fingerprint(user.f) == before
    module("fp_part", "import fp_deep\nK = 2", imported=False)
    assert code_fingerprint(user.f) != before


def test_a_relative_import_inside_counts_by_its_source(module):
    module("fp_pack.__init__", "", imported=False)
    module("fp_pack.part", "K = 1", imported=False)
    user = module("fp_pack.user", "def f(o):\n    from . import part\n    return part.K")
    before = code_fingerprint(user.f)
    module("fp_pack.part", "K = 2", imported=False)
    assert code_fingerprint(user.f) != before


@pytest.mark.parametrize(
    "source",
    [
        "import numpy\ndef f(o): return numpy.mean(o)",
        "from numpy import mean\ndef f(o): return mean(o)",
        "import torch\nclass f(torch.nn.ReLU): pass",
        "import torch\nf = torch.nn.ReLU()",
        "from torch.nn.functional import relu as f",
    ],
)
def test_a_library_counts_by_its_version(made, monkeypatch, source):
    before = code_fingerprint(made(source)["f"])
    monkeypatch.setattr(torch, "__version__", "1.2.3")
    monkeypatch.setattr(np, "__version__", "1.2.3")
    assert code_fingerprint(made(source)["f"]) != before


def test_a_library_without_a_version_counts_by_its_source(module, tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def digest(source):
        (folder / "fp_library.py").write_text(source)
        sys.modules.pop("fp_library", None)
        user = module("fp_user", "import fp_library\ndef f(o): return fp_library.g(o)")
        return code_fingerprint(user.f)

    before = digest("def g(o): return 1\n")
    assert before != digest("def g(o): return 22\n")
    sys.modules.pop("fp_library", None)


def test_python_counts_by_its_version(monkeypatch):
    before = code_fingerprint(1)
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    assert code_fingerprint(1) != before


_ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
import fp_task
from compress.fingerprints import code_fingerprint, data_fingerprint
print([code_fingerprint(value) for value in fp_task.VALUES], data_fingerprint(fp_task.DATA, "x"))
"""


def test_another_process_says_the_same(module, tmp_path):
    # Sets of texts, addresses and hash seeds are what differs between processes.
    source = """
        import functools, logging, threading
        import torch
        from torch import nn
        NAMES = {"alpha", "beta", "gamma", "delta"}
        LOG = logging.getLogger(__name__)
        class A:
            kinds = frozenset({"x", "y", "z"})
            def __init__(self): self.seen = {"p": {("q", 1), ("r", 2)}, "s": nn.ReLU(), "t": self}
            def __call__(self, o): LOG.info(o); return o in NAMES or o in {"k", "l", "m"}
        class B(nn.Module):
            def __init__(self): super().__init__(); self.act = torch.relu; self.size = {3, "w"}
        def g(o): return {n: A for n in NAMES}
        VALUES = [A(), A, B(), g, functools.partial(g, A), {A(), B, g, "t"}, object(), nn.GELU()]
        DATA = [(torch.arange(3.0), {"a", "b", "c"}), (torch.ones(3), "d")]
    """
    here = module("fp_task", source)
    said = [[code_fingerprint(value) for value in here.VALUES], data_fingerprint(here.DATA, "x")]
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "4321"},
    )
    assert done.stdout.strip() == f"{said[0]} {said[1]}"
