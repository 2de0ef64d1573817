"""Data sets: every edit of a sample is noticed, whatever holds them."""

import random
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)

from compress.errors import DataError, RecipeError
from compress.fingerprints import DataDigestCache, Unstable, arrays, data_fingerprint
from compress.fingerprints.in_memory import attributes_read
from compress.tasks import make_task
from compress.tasks.arrays import ArrayDataset, first, inputs_of
from compress.tasks.language import WindowDataset
from compress.tasks.tokens import TokenDataset

pytestmark = pytest.mark.fast

TRAIN = "the training data"


def digest(dataset, memory=None):
    return data_fingerprint(dataset, TRAIN, memory)


def columns():
    return torch.arange(40.0).view(20, 2), torch.arange(20) % 3


class Held:
    """In memory: what it gives is plainly a part of its arrays."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


class Read(Held):
    """Of which every sample must be read: a function of its own makes them."""

    def __getitem__(self, i):
        return self._made(i)

    def _made(self, i):
        return self.x[i], self.y[i]


class Batched(Read):
    def __getitems__(self, places):
        return [self._made(i) for i in places]


class Named(Read):
    def __getitem__(self, i):
        return {"ids": self.x[i], "mask": self.y[i]}


class Single(Read):
    def __getitem__(self, i):
        return self.x[i] + self.y[i]


class Numbers(Read):
    def __getitem__(self, i):
        return self.x[i].numpy(), int(self.y[i]) if i % 2 else None


class Strict(Read):
    def __getitem__(self, i):
        if isinstance(i, slice) or not 0 <= i < len(self):
            raise IndexError(i)
        return self._made(i)


class Sliced(Read):
    def __getitem__(self, i):
        return [self._made(k) for k in range(*i.indices(20))] if isinstance(i, slice) else self.x[i]


class HuggingFaceLike:
    """As datasets.Dataset: columns, rows as dictionaries, and a private fingerprint."""

    _fingerprint = "1234"

    def __init__(self, x, y):
        self._columns = {"pixels": x.tolist(), "text": [str(n) for n in y.tolist()]}

    def __len__(self):
        return len(self._columns["text"])

    def __getitem__(self, key):
        if isinstance(key, str):
            return self._columns[key]
        return {name: column[key] for name, column in self._columns.items()}

    def __getitems__(self, keys):
        return [self[key] for key in keys]


def listed(x, y):
    return list(zip(x, y.tolist(), strict=True))


def as_objects(x, y):
    return Held(np.array([[1, "a"]] * len(x), dtype=object), y + x[:, 0].long() - x[:, 0].long())


KINDS = {
    "arrays": ArrayDataset,
    "first": lambda x, y: first(Held(x, y), 19),
    "inputs": lambda x, y: inputs_of(Single(x, y)),
    "tokens": lambda x, y: TokenDataset(x.int(), 3, y),
    "windows": lambda x, y: WindowDataset(x.byte() + y[:, None].byte()),
    "tensors": TensorDataset,
    "subset": lambda x, y: Subset(TensorDataset(x, y), list(range(20))),
    "concatenated": lambda x, y: ConcatDataset([TensorDataset(x, y), Held(x, y)]),
    "stacked": lambda x, y: StackDataset(Single(x, y), Single(x, y)),
    "random split": lambda x, y: random_split(
        Read(x, y), [19, 1], torch.Generator().manual_seed(0)
    )[0],
    "held": Held,
    "held in numpy": lambda x, y: Held(x.numpy(), y.numpy()),
    "held in lists": lambda x, y: Held(x, y.tolist()),
    "read": Read,
    "batched": Batched,
    "named": Named,
    "single": Single,
    "numbers": Numbers,
    "strict": Strict,
    "sliced": lambda x, y: Sliced(x + y[:, None], y),
    "hugging face": HuggingFaceLike,
    "list": listed,
    "tuple": lambda x, y: tuple(listed(x, y)),
    "one tensor": lambda x, y: x + y[:, None],
    "one array": lambda x, y: (x + y[:, None]).numpy(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_edit_of_any_sample_is_noticed(kind):
    make = KINDS[kind]
    before = digest(make(*columns()))
    assert before == digest(make(*columns()))
    for place in (1, 7, 13):  # 7 is of no spread sample
        x, y = columns()
        x[place, 1] += 1
        assert digest(make(x, y)) != before
        if kind not in ("hugging face",):
            x, y = columns()
            y[place] += 5
            assert digest(make(x, y)) != before
    x, y = columns()
    if kind not in ("first", "random split", "subset"):  # which name samples that are gone
        assert digest(make(x[:-2], y[:-2])) != before


def test_a_built_in_task_made_again_has_the_same_digests():
    one, again = make_task("digits"), make_task("digits")
    digests = [[digest(t.train), digest(t.validation), digest(t.test)] for t in (one, again)]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 3


@pytest.mark.parametrize("kind", ["arrays", "tensors", "held", "read", "list"])
def test_order_counts(kind):
    x, y = columns()
    assert digest(KINDS[kind](x, y)) != digest(KINDS[kind](x.flip(0), y.flip(0)))


def test_samples_are_not_run_together():
    pairs = [
        ([b"ab", b"c"], [b"a", b"bc"]),
        ([("a", "b")], ["a", "b"]),
        ([torch.zeros(2), torch.zeros(2)], [torch.zeros(4)]),
        ([torch.zeros(2)], [torch.zeros(2).double()]),
        ([torch.zeros(2)], [np.zeros(2, "f4")]),
        ([{"a": 1}], [{"b": 1}]),
        ([(torch.zeros(1), None)], [(torch.zeros(1), 0)]),
        ([1], [True]),
    ]
    for one, other in pairs:
        assert digest(one) != digest(other)


def test_which_samples_a_subset_has_counts():
    whole = TensorDataset(*columns())
    parts = [Subset(whole, places) for places in ([0, 1], [1, 0], [0, 1, 1], range(2))]
    assert len({digest(part) for part in parts}) == 3
    assert digest(parts[0]) == digest(parts[3])


@pytest.mark.parametrize("kind", ["arrays", "tensors", "held", "read", "list", "named"])
@pytest.mark.parametrize("deep", [False, True])
def test_an_edit_elsewhere_is_none_of_a_subset(kind, deep):
    def parts():
        x, y = columns()
        whole = KINDS[kind](x, y)
        train, test = Subset(whole, range(15)), Subset(whole, range(15, 20))
        return (x, Subset(train, [3, 1]), test) if deep else (x, train, test)

    memory = DataDigestCache()
    x, train, test = parts()
    before = [digest(part, memory) for part in (train, test)]
    assert before == [digest(part, memory) for part in parts()[1:]]
    x[17, 0] += 1
    after = [digest(part, memory) for part in (train, test)]
    assert after[0] == before[0]
    assert after[1] != before[1]
    x[3, 0] += 1
    assert digest(train, memory) != before[0]


def test_the_first_samples_and_inputs_are_read_alone():
    class Costly(Read):
        reads = 0

        def __getitem__(self, i):
            type(self).reads += 1
            return self.x[i], self.y[i]

    x, y = columns()
    before = digest(first(Costly(x, y), 2))
    assert Costly.reads == 2 * 2 + 2
    x[5], y[1] = 9, 9
    inputs = digest(inputs_of(Costly(x, y)))
    y[1] = 3
    assert digest(inputs_of(Costly(x, y))) == inputs
    assert digest(first(Costly(x, y), 2)) != before


def test_a_sample_with_strings_and_objects_counts():
    assert digest([("a", {"b": {1, 2}})]) == digest([("a", {"b": {2, 1}})])
    assert digest([("a", {"b": {1, 2}})]) != digest([("a", {"b": {1, 3}})])
    one, other = (Held(np.array([["a", None]], dtype=object), [label]) for label in (1, 2))
    assert digest(one) != digest(other)


def test_a_memory_mapped_array_counts_by_its_content(tmp_path):
    path = tmp_path / "x.bin"
    mapped = np.memmap(path, "f4", "w+", shape=(64, 512))
    dataset, memory = Held(mapped, list(range(64))), DataDigestCache()
    before = digest(dataset, memory)
    assert digest(dataset, memory) == before
    mapped[63, 500] = 1
    assert digest(dataset, memory) != before


class Noisy(Read):
    def __getitem__(self, i):
        return self.x[i] + torch.rand(2), self.y[i]


class NoisyInPython(Read):
    def __getitem__(self, i):
        return self.x[i] + random.random(), self.y[i]


class NoisyInNumpy(Read):
    def __getitem__(self, i):
        return self.x[i].numpy() + np.random.random(), self.y[i]


class NoisyBatches(Read):
    def __getitems__(self, places):
        return [(self.x[i] + torch.rand(2), self.y[i]) for i in places]


class Counting(Read):
    reads = 0

    def __getitem__(self, i):
        self.reads += 1
        return self.x[i] * self.reads, self.y[i]


@pytest.mark.parametrize("kind", [Noisy, NoisyInPython, NoisyInNumpy, NoisyBatches, Counting])
def test_two_reads_that_differ_are_told(kind):
    with pytest.raises(Unstable) as raised:
        digest(kind(*columns()))
    assert str(raised.value).startswith("two reads of sample 0 of the training data differ (")
    assert "give the data set a `fingerprint`" in str(raised.value)


class Rarely(Read):
    def __getitem__(self, i):
        return (self.x[i] + (torch.rand(2) if i == 19 else 0)), self.y[i]


def test_of_two_reads_the_sample_is_named():
    with pytest.raises(Unstable, match="two reads of sample 19 of the training data differ"):
        digest(Rarely(*columns()))


def test_reading_leaves_random_numbers_as_they_were():
    class Seeded(Read):
        def __getitem__(self, i):
            torch.manual_seed(i), np.random.seed(i), random.seed(i)
            return self.x[i] + torch.rand(2), np.random.random() + random.random()

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert digest(Seeded(*columns())) == digest(Seeded(*columns()))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_a_sample_that_cannot_be_read_is_named():
    class Short(Read):
        def __len__(self):
            return 25

    with pytest.raises(Unstable) as raised:
        digest(Short(*columns()))
    assert str(raised.value).startswith("sample 20 of the training data cannot be read (IndexError")
    assert str(raised.value).endswith("its length is 25")

    class ShortBatches(Short):
        def __len__(self):
            return 20

        def __getitems__(self, places):
            return [self[i] for i in places] if len(places) == 1 else self[20]

    with pytest.raises(Unstable, match="samples 0 to 19 of the training data cannot be read toge"):
        digest(ShortBatches(*columns()))

    class Refusing(Read):
        def __getitem__(self, i):
            raise RecipeError("no such file.")

    with pytest.raises(RecipeError, match="no such file"):
        digest(Refusing(*columns()))
    with pytest.raises(Unstable, match=r"the training data holds a lock \(sample 0\), whose"):
        digest([threading.Lock()])


class Offering(Noisy):
    said = "version 1"

    def fingerprint(self):
        return self.said


def test_what_a_data_set_says_of_itself_is_taken():
    one, same, other = (Offering(*columns()) for _ in range(3))
    other.said = "version 2"
    assert digest(one) == digest(same) != digest(other)

    class AsAttribute(Noisy):
        fingerprint = "version 1"

    class AsProperty(Noisy):
        @property
        def fingerprint(self):
            return "version 1"

    kinds = {digest(kind(*columns())) for kind in (Offering, AsAttribute, AsProperty)}
    assert len(kinds) == 3  # each is another class
    assert digest(Subset(one, [0])) == digest(Subset(same, [0])) != digest(Subset(other, [0]))


def test_what_an_inner_data_set_says_is_not_taken_for_its_wrapper():
    class Wrapper:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __len__(self):
            return 20

        def __getitem__(self, i):
            return self.inner[i]

    assert Wrapper(Offering(*columns())).fingerprint() == "version 1"
    with pytest.raises(Unstable, match="two reads of sample 0"):
        digest(Wrapper(Offering(*columns())))


@pytest.mark.parametrize(
    ("offered", "words"),
    [
        ("", "own `fingerprint` is empty; it is a text"),
        (7, "own `fingerprint` is of the type int; it is a text"),
        (None, "own `fingerprint` is of the type NoneType; it is a text"),
        (lambda: b"x", "own `fingerprint` is of the type bytes; it is a text"),
        (lambda n: "x", "own `fingerprint` failed with TypeError"),
    ],
)
def test_what_is_offered_and_is_no_text_is_refused(offered, words):
    dataset = Read(*columns())
    dataset.fingerprint = offered
    with pytest.raises(DataError) as raised:
        digest(dataset)
    assert str(raised.value).startswith("the training data: the data set's " + words)


@pytest.mark.parametrize("kind", [Held, ArrayDataset, TensorDataset])
def test_arrays_that_were_hashed_are_looked_at_again(kind, monkeypatch):
    torch.manual_seed(0)
    x, y = torch.rand(512, 96), torch.arange(512)
    dataset, memory = kind(x, y), DataDigestCache()
    before = digest(dataset, memory)
    hashed = []
    real = arrays._digest
    monkeypatch.setattr(arrays, "_digest", lambda a, c: hashed.append(a.shape) or real(a, c))
    assert digest(dataset, memory) == before
    assert (512, 96) not in hashed
    x.numpy()[200, 50] += 1e-3  # leaves no trace in torch
    edited = digest(dataset, memory)
    assert edited == digest(kind(x.clone(), y)) != before
    x[200, 50] = -x[200, 50]
    assert digest(dataset, memory) not in (before, edited)


@pytest.mark.parametrize(
    "edit",
    [
        lambda a: np.negative(a, out=a),
        lambda a: a.__setitem__(slice(None, None, 2), -a[::2]),
        lambda a: a.__setitem__((3, 5), np.nextafter(a[3, 5], 9)),
        lambda a: a.__setitem__(slice(0, 2), a[[1, 0]]),
        lambda a: np.copyto(a, np.roll(a, 1)),
        lambda a: a.__setitem__((-1, -1), 7),
    ],
)
@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_every_kind_of_edit_through_numpy_is_noticed(edit, dtype):
    array = (np.random.RandomState(0).rand(300, 203) * 100).astype(dtype) + 1
    memory = DataDigestCache()
    before = memory.of(array)
    edit(array)
    assert memory.of(array) != before


def test_memory_ends_with_the_arrays():
    memory = DataDigestCache()
    array = np.zeros(100_000)
    memory.of(array)
    assert memory.arrays == 1
    del array
    assert memory.arrays == 0


def test_what_is_not_plainly_in_memory_is_read():
    x, y = columns()

    class Global(Held):
        def __getitem__(self, i):
            return self.x[i] * SCALE[0], self.y[i]

    class Imported(Held):
        def __getitem__(self, i):
            import math

            return self.x[i] * math.pi, self.y[i]

    class Drawn(Held):
        def __getitem__(self, i):
            return self.x[i] + torch.rand(2), self.y[i]

    class Computed(Held):
        @property
        def x(self):
            return torch.rand(20, 2)

        @x.setter
        def x(self, value):
            self.__dict__["x"] = value

    class Wrapped(Held):
        def __init__(self, x, y):
            super().__init__(Held(x, y), y)

    class Writing(Held):
        def __getitem__(self, i):
            self.last = i
            return self.x[i], self.y[i]

    for kind in (Global, Imported, Drawn, Computed, Wrapped, Writing, Read):
        assert attributes_read(kind(x, y)) is None, kind
    assert set(attributes_read(Held(x, y))) == {"x", "y"}

    class Plain(Dataset):
        def __init__(self, x, y):
            self.images, self.labels, self.mean = x, y, 0.5

        def __len__(self):
            return len(self.images)

        def __getitem__(self, i):
            return (self.images[i].float() - self.mean).unsqueeze(0), int(self.labels[i])

    assert set(attributes_read(Plain(x, y))) == {"images", "labels", "mean"}


SCALE = [1]
