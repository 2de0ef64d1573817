"""The shapes of data that people have: 64 samples of each, which a small net learns."""

import numpy as np
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    TensorDataset,
    random_split,
)

from compress import Fields, Task

COUNT = 64
X = torch.randn(COUNT, 6, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


def task(train, **said):
    """All splits of one kind; the first is a factory, since some can be gone through once."""
    return Task("mine", train(), train(), train(), **said)


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(X, Y, strict=True)


class Rows(Dataset):
    """Of whatever ``sample`` gives."""

    def __init__(self, sample):
        self.sample = sample

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        if not 0 <= index < COUNT:
            raise IndexError(index)
        return self.sample(index)


def samples():
    for x, y in zip(X, Y, strict=True):
        yield x.numpy(), int(y)


def parts():
    whole = TensorDataset(X, Y)
    generator = torch.Generator().manual_seed(0)
    return Task("mine", *random_split(whole, [32, 16, 16], generator=generator))


def own_batch(samples):
    x, y = zip(*samples, strict=True)
    return {"pixel_values": torch.stack(x), "labels": torch.tensor([int(one) for one in y])}


def text(index):
    ids = torch.arange(2 + index % 5) + 3 * int(Y[index]) + 1
    return {"input_ids": ids, "label": int(Y[index])}


def saved_npz(folder):
    np.savez(folder / "d.npz", x=X.numpy(), y=Y.numpy())
    return {"name": "npz", "path": str(folder / "d.npz")}


def saved_parquet(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"pixel_values": X.tolist(), "label": Y.tolist()}
    pq.write_table(pa.table(columns), folder / "d.parquet")
    return {"name": "parquet", "path": str(folder / "d.parquet")}


def saved_features(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"f{place}" for place in range(6)]
    columns = {name: X[:, place].tolist() for place, name in enumerate(names)}
    columns |= {"species": Y.tolist(), "note": ["a"] * COUNT}
    pq.write_table(pa.table(columns), folder / "d.parquet")
    path = str(folder / "d.parquet")
    return {"name": "parquet", "path": path, "features": names, "label": "species"}


def hugging_face():
    import datasets

    return datasets.Dataset.from_dict({"pixel_values": X.tolist(), "labels": Y.tolist()})


def saved_datasets(folder):
    import datasets

    parts = {"train": hugging_face(), "test": hugging_face()}
    datasets.DatasetDict(parts).save_to_disk(folder / "d")
    return {"name": "datasets-folder", "folder": str(folder / "d")}


TWO = {"image": 0, "depth": 1}
#: In memory: the task, and the net.
SHAPES = {
    "a list of pairs": (lambda: task(lambda: list(zip(X, Y, strict=True))), "plain"),
    "parts of random_split": (parts, "plain"),
    "data sets after one another": (
        lambda: task(lambda: ConcatDataset([TensorDataset(X[:40], Y[:40]), Rows(pair)])),
        "plain",
    ),
    "an iterable data set": (lambda: task(Stream), "plain"),
    "a generator": (lambda: task(samples), "plain"),
    "a loader": (lambda: task(lambda: DataLoader(TensorDataset(X, Y), 8, shuffle=True)), "plain"),
    "a loader with a collate_fn": (
        lambda: task(lambda: DataLoader(TensorDataset(X, Y), 8, collate_fn=own_batch)),
        "named",
    ),
    "a loader of a stream": (lambda: task(lambda: DataLoader(Stream(), 8)), "plain"),
    "dictionaries with a label": (
        lambda: task(lambda: Rows(lambda i: {"pixel_values": X[i], "labels": int(Y[i])})),
        "named",
    ),
    "tuples of three": (
        lambda: task(
            lambda: TensorDataset(X[:, :3], X[:, 3:], Y), fields=Fields(inputs=TWO, label=2)
        ),
        "pair",
    ),
    "nested tuples": (
        lambda: task(
            lambda: Rows(lambda i: ((X[i, :3], X[i, 3:]), Y[i])),
            fields=Fields(inputs={"image": "0.0", "depth": "0.1"}, label=1),
        ),
        "pair",
    ),
    "nested dictionaries": (
        lambda: task(
            lambda: Rows(
                lambda i: {"a": {"image": X[i, :3]}, "depth": X[i, 3:].numpy(), "kind": Y[i]}
            ),
            fields=Fields(inputs=("a.image", "depth"), label="kind"),
        ),
        "pair",
    ),
    "numbers by name": (
        lambda: task(
            lambda: Rows(lambda i: {"a": float(X[i, 0]), "b": X[i, 1].numpy(), "target": Y[i]})
        ),
        "numbers",
    ),
    "sequences of different lengths": (
        lambda: task(lambda: Rows(text), fields=Fields(padding=0, mask="attention_mask")),
        "text",
    ),
    "a Hugging Face data set": (lambda: task(hugging_face), "named"),
    "a Hugging Face data set as torch": (
        lambda: task(lambda: hugging_face().with_format("torch")),
        "named",
    ),
}
#: On disk: what writes it and gives the task as a recipe has it, and the net.
FILES = {
    "npz": (saved_npz, "plain"),
    "parquet": (saved_parquet, "named"),
    "parquet features": (saved_features, "plain"),
    "datasets folder": (saved_datasets, "named"),
}


def pair(index):
    return X[index], Y[index]
