import subprocess
import sys
from pathlib import Path

import pytest

TINY = """\
schema: 1
name: tiny
description: For tests.
task: digits
model: {arch: mlp, in_features: 64, width: 16}
stages:
  - {kind: train, epochs: 2, batch_size: 64, learning_rate: 0.01}
  - {kind: quantize}
  - {kind: prune, ratio: 0.3}
"""

PARTS = '''\
"""Someone's own parts, as a user would write them."""

from typing import ClassVar, Literal

import torch
from torch import nn

from compress import Candidate, Context, Effect, Stage, Task


class ScaleStage(Stage):
    """Multiply every bias by a factor."""

    effects: ClassVar[frozenset[Effect]] = frozenset({Effect.WEIGHTS})

    kind: Literal["scale"] = "scale"
    factor: float = 0.5

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        scaled = candidate.fork()
        with torch.no_grad():
            for name, parameter in scaled.module.named_parameters():
                if name.endswith("bias"):
                    parameter.mul_(self.factor)
                    parameter.add_(0.01)
        return scaled


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, x):
        return self.head(torch.relu(self.first(x)))


class Points:
    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(count, 6, generator=generator)
        self.y = self.x[:, :3].argmax(1)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


def make_task():
    return Task(name="points", train=Points(200, 0), validation=Points(50, 1), test=Points(80, 2))


def my_loss(student, teacher, labels):
    return (student - teacher).abs().mean()


def my_teacher(inputs):
    return inputs[:, :3] * 5


number = 3
'''


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A module of the user's, importable from the current folder."""
    (tmp_path / "my_parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_parts", None)


@pytest.fixture
def compresskit(tmp_path):
    """Runs the command in a process of its own."""

    def call(*arguments, cwd: Path = tmp_path, preface: str = ""):
        code = f"import sys\n{preface}\nfrom compress.cli import main\nsys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)

    return call
