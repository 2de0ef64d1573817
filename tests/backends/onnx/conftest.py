"""Small nets that are hard to lower, each exported once per session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.artifact import Lowering
from compress.backends.onnx.encoding import encode
from compress.backends.onnx.export import export
from compress.backends.onnx.files import save
from compress.candidate import Candidate
from compress.modules.inputs import Inputs
from compress.quantization.fakequant import quantizable_layers
from compress.quantization.numerics import Calibration, LayerFormat, Numerics, QuantRule


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.head(x.mean((2, 3)))


class Plain(nn.Module):
    """No batch norm and no activation function: what is excluded stands between Q and DQ."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 8, 3)
        self.third, self.head = nn.Conv2d(8, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.third(self.second(self.first(x))).mean((2, 3)))


class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last, self.head = nn.Conv2d(8, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv(F.relu(x))
        return self.head(F.adaptive_avg_pool2d(self.last(x), 1).flatten(1))


class Gated(nn.Module):
    """Squeeze and excitation, SiLU, Hardswish, ReLU6, pooling, split and concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.excite, self.mix = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.point, self.head = nn.Conv2d(8, 6, 1), nn.Linear(6 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        gate = self.excite(F.relu6(self.squeeze(F.adaptive_avg_pool2d(x, 1))))
        x = F.hardswish(self.mix(x * torch.sigmoid(gate)))
        left, right = self.point(F.avg_pool2d(x, 2)).chunk(2, dim=1)
        x = torch.cat([right, F.leaky_relu(left, 0.1)], dim=1)
        return self.head(x.flatten(1))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.mid = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.join = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(16, 8, 3, padding=1)
        self.wide, self.out = nn.Upsample(scale_factor=2), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        low = F.relu(self.mid(F.max_pool2d(skip, 2)))
        high = F.relu(self.join(torch.cat([self.up(low), skip], dim=1)))
        return self.out(torch.cat([self.wide(low), high], dim=1))


class Encoder(nn.Module):
    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.embed = heads, nn.Embedding(20, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)
        self.v, self.o = nn.Linear(width, width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        b, t, d = x.shape

        def split(z: Tensor) -> Tensor:
            return z.view(b, t, self.heads, d // self.heads).transpose(1, 2)

        y = self.norm1(x)
        weights = split(self.q(y)) @ split(self.k(y)).transpose(-1, -2) * (d // self.heads) ** -0.5
        mixed = (weights.softmax(-1) @ split(self.v(y))).transpose(1, 2).reshape(b, t, d)
        x = x + self.o(mixed)
        x = x + self.narrow(F.relu(self.wide(self.norm2(x))))
        return self.head(x.mean(1))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 8, 3, stride=2), nn.Linear(6, 8)
        self.head = nn.Linear(16, 4)

    def forward(self, image: Tensor, meta: Tensor) -> Tensor:
        pooled = F.relu(self.conv(image)).mean((2, 3))
        return self.head(torch.cat([pooled, torch.tanh(self.fc(meta))], dim=1))


class Tied(nn.Module):
    """One weight for an embedding and a layer, and one layer called twice under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.twice = nn.Embedding(12, 8), nn.Linear(8, 8)
        self.again, self.head = self.twice, nn.Linear(8, 12, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.twice(self.embed(x).mean(1)))
        return self.head(F.relu(self.again(x)))


class OneD(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv1d(2, 8, 5, padding=2), nn.BatchNorm1d(8)
        self.deep, self.head = nn.Conv1d(8, 8, 3, groups=2, dilation=2), nn.Linear(8 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.bn(self.conv(x))), 2)
        return self.head(F.relu(self.deep(x)).view(x.shape[0], -1))


_IMAGE, _NETS = (2, 6, 6), {
    "residual": Residual, "plain": Plain, "preactivation": PreActivation, "gated": Gated,
    "unet": UNet, "encoder": Encoder, "two": TwoInputs, "tied": Tied, "one_d": OneD,
}  # fmt: skip
_SHAPES = {"plain": (2, 9, 9), "one_d": (2, 24)}


@dataclass(frozen=True)
class Net:
    """A net in eval mode, with batch norms that do something, and its inputs."""

    name: str
    module: nn.Module

    def inputs(self, samples: int, seed: int = 0) -> Inputs:
        draw = torch.Generator().manual_seed(seed)
        if self.name in ("encoder", "tied"):
            return torch.randint(12, (samples, 7), generator=draw)
        if self.name == "two":
            shapes = {"image": (1, 9, 9), "meta": (6,)}
            return {k: torch.randn(samples, *s, generator=draw) for k, s in shapes.items()}
        return torch.randn(samples, *_SHAPES.get(self.name, _IMAGE), generator=draw)

    def candidate(self, *rules: QuantRule) -> Candidate:
        made = Candidate.of(self.module, self.inputs(2))
        return replace(made, numerics=Numerics(rules))

    def formats(self, *rules: QuantRule) -> dict[str, LayerFormat]:
        return Numerics(rules).resolve(quantizable_layers(self.module))


def _build(name: str) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = _NETS[name]()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 2)
                # Some factors are negative: folding them flips the signs of a channel.
                layer.weight.data.uniform_(-0.5, 1.5)
                layer.bias.data.normal_(0, 0.2)
    return Net(name, module.eval())


@pytest.fixture(scope="session")
def net() -> Callable[[str], Net]:
    made = {name: _build(name) for name in _NETS}
    return lambda name: made[name]


@pytest.fixture(scope="session")
def exported(net: Callable[[str], Net]) -> Callable[[str], ir.Model]:
    """The float graph of a net at batch 1, a fresh one at every call."""
    files: dict[str, bytes] = {}

    def fresh(name: str) -> ir.Model:
        if name not in files:
            model = export(net(name).module, net(name).inputs(2), Lowering())
            files[name] = ir.to_proto(model).SerializeToString()
        return ir.from_proto(onnx.ModelProto.FromString(files[name]))

    return fresh


@dataclass(frozen=True)
class Encoded:
    """A net in some formats, on disk."""

    path: Path
    proto: onnx.ModelProto
    ranges: dict[str, tuple[float, float]]
    warnings: tuple[str, ...]

    def optimized(self) -> list[str]:
        """The operators that onnxruntime makes of the file."""
        options = ort.SessionOptions()
        options.log_severity_level = 4
        target = self.path.with_name("optimized.onnx")
        options.optimized_model_filepath = str(target)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        ort.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        return [node.op_type for node in onnx.load(target).graph.node]


@pytest.fixture
def encoded(
    net: Callable[[str], Net], exported: Callable[[str], ir.Model], tmp_path: Path
) -> Callable[..., Encoded]:
    def make(name: str, *rules: QuantRule, avoid_saturation: bool = True) -> Encoded:
        data = [net(name).inputs(8, seed) for seed in (1, 2)]
        model, ranges, warnings, *_ = encode(
            exported(name), net(name).formats(*rules), data, avoid_saturation=avoid_saturation
        )
        path = tmp_path / f"{name}.onnx"
        save(ir.to_proto(model), path)
        return Encoded(path, onnx.load(path), ranges, warnings)

    return make


@pytest.fixture(scope="session")
def rule() -> Callable[..., QuantRule]:
    """A rule by the words of a recipe: ``rule("int8", "dynamic", exclude=("head",))``."""

    def make(
        weights: str = "int8",
        activations: str = "int8",
        *,
        select: tuple[str, ...] = ("*",),
        exclude: tuple[str, ...] = (),
        method: str = "minmax",
    ) -> QuantRule:
        calibration = Calibration.model_validate({"method": method, "percentile": 99.5})
        format = LayerFormat.model_validate(
            {"weights": weights, "activations": activations, "calibration": calibration}
        )
        return QuantRule(select=select, exclude=exclude, format=format)

    return make
