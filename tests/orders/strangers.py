"""Ten small nets as strangers write them, each with a small task that it can learn.

None of them is like a net of ``compress.zoo`` or ``compress.testing``: other code for other parts,
put together in other ways. Everything is drawn from seeds.
"""

import functools
import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from compress.modules.inputs import forward
from compress.task import Task
from compress.tasks.arrays import ArrayDataset

CLASSES = 4
TRAIN, VALIDATION, TEST = 128, 64, 64
EXAMPLE = 4
NOISE = 0.7
STEPS = 60


class GaitEncoder(nn.Module):
    """Attention with a fused qkv and slopes over time, all in one dictionary of modules."""

    def __init__(self, dim=32, heads=4, depth=2):
        super().__init__()
        self.heads, self.depth = heads, depth
        parts = {"tokens": nn.Conv1d(6, dim, 4, stride=4)}
        for i in range(depth):
            parts[f"pre_{i}"] = nn.LayerNorm(dim)
            parts[f"qkv_{i}"] = nn.Linear(dim, 3 * dim, bias=False)
            parts[f"mix_{i}"] = nn.Linear(dim, dim)
            parts[f"ff_{i}"] = nn.Sequential(
                nn.LayerNorm(dim), nn.Linear(dim, 48), nn.SiLU(), nn.Linear(48, dim)
            )
        parts["score"], parts["classify"] = nn.Linear(dim, 1), nn.Linear(dim, CLASSES)
        self.parts = nn.ModuleDict(parts)
        time = torch.arange(12.0)
        slopes = 0.5 ** torch.arange(1.0, heads + 1)
        distance = (time[:, None] - time[None, :]).abs()
        self.register_buffer("slopes", -slopes[:, None, None] * distance, persistent=False)

    def attend(self, i, x):
        q, k, v = self.parts[f"qkv_{i}"](x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        scores = torch.einsum("nqhd,nkhd->nhqk", q, k).div(math.sqrt(q.size(-1))) + self.slopes
        out = torch.einsum("nhqk,nkhd->nqhd", scores.softmax(-1), v)
        return self.parts[f"mix_{i}"](out.flatten(-2))

    def forward(self, x):
        x = self.parts["tokens"](x).mT
        for i in range(self.depth):
            x = x + self.attend(i, self.parts[f"pre_{i}"](x))
            x = x + self.parts[f"ff_{i}"](x)
        share = self.parts["score"](x).softmax(dim=1)
        return self.parts["classify"]((share * x).sum(dim=1))


def tdnn(before, after, dilation):
    return nn.Sequential(
        nn.Conv1d(before, after, 3, dilation=dilation),
        nn.PReLU(after),
        nn.BatchNorm1d(after, momentum=0.2),
    )


class Seismograph(nn.Module):
    """Dilated frames of a signal, skips that are cropped, and the mean and deviation over time."""

    def __init__(self):
        super().__init__()
        self.filters = nn.Conv1d(2, 24, 9, stride=2, bias=False)
        self.frames = nn.ModuleList([tdnn(24, 24, 1), tdnn(24, 24, 2), tdnn(24, 40, 3)])
        self.embedding = nn.Linear(80, 24)
        self.classifier = nn.Linear(24, CLASSES)

    def forward(self, signal):
        x = torch.log1p(self.filters(signal).abs())
        for frame in self.frames:
            y = frame(x)
            if y.shape[1] == x.shape[1]:
                margin = (x.shape[-1] - y.shape[-1]) // 2
                y = y + x[..., margin : margin + y.shape[-1]]
            x = y
        mean = x.mean(-1)
        deviation = (x - mean[..., None]).square().mean(-1).add(1e-5).sqrt()
        statistics = torch.cat([mean, deviation], dim=-1)
        return self.classifier(torch.tanh(self.embedding(statistics)))


class KeywordSpotter(nn.Module):
    """A convolution that takes in all frequencies, and a GRU both ways over what is left."""

    def __init__(self, bands=10, hidden=20):
        super().__init__()
        self.front = nn.Conv2d(1, 24, (5, bands), stride=(2, 1))
        self.front_norm = nn.BatchNorm2d(24)
        self.squeeze = nn.Conv1d(24, 16, kernel_size=1)
        self.gru = nn.GRU(16, hidden, bidirectional=True)
        self.words = nn.Sequential(nn.Linear(2 * hidden, 24), nn.ELU(), nn.Linear(24, CLASSES))

    def forward(self, spectrogram):
        x = F.leaky_relu(self.front_norm(self.front(spectrogram)), 0.1)
        x = self.squeeze(x.squeeze(-1)).permute(2, 0, 1)
        _, last = self.gru(x)
        return self.words(torch.cat((last[0], last[1]), dim=-1))


class SkyAndStation(nn.Module):
    """An image and six readings, by name: the readings scale and shift the image's channels."""

    def __init__(self):
        super().__init__()
        self.eye = nn.ModuleList(
            [nn.Conv2d(1, 16, 3, bias=False), nn.Conv2d(16, 24, 3, stride=2, padding=1)]
        )
        self.eye_norm = nn.GroupNorm(4, 16)
        self.station = nn.Sequential(nn.Linear(6, 32), nn.Softplus(), nn.Linear(32, 20))
        self.film = nn.Linear(20, 48)
        self.fuse = nn.Bilinear(24, 20, 12)
        self.out = nn.Linear(12 + 24, CLASSES)

    def forward(self, sky, readings):
        x = torch.relu_(self.eye_norm(self.eye[0](sky)))
        x = self.eye[1](x)
        r = self.station(readings).tanh()
        gain, shift = self.film(r)[:, :, None, None].chunk(2, 1)
        x = F.relu((1 + gain) * x + shift).amax(dim=(-2, -1))
        return self.out(torch.cat((self.fuse(x, r).relu(), x), 1))


class Recorder(nn.Module):
    """Next tokens by causal averages, one block used twice, and an output tied to the table."""

    def __init__(self, vocabulary=12, dim=24, hidden=40):
        super().__init__()
        self.lookup = nn.Embedding(vocabulary, dim)
        self.widen = nn.Linear(dim, hidden)
        self.past = nn.Conv1d(hidden, hidden, 3, groups=hidden)
        self.gate, self.value = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.narrow = nn.Linear(hidden, dim)
        self.spell = nn.Linear(dim, vocabulary)
        self.spell.weight = self.lookup.weight
        nn.init.normal_(self.lookup.weight, std=dim**-0.5)

    def block(self, x):
        y = self.past(F.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2)
        return self.norm(x + torch.sigmoid(self.gate(y)) * self.value(y))

    def forward(self, ids):
        x = self.widen(self.lookup(ids))
        x = self.block(self.block(x))
        return self.spell(self.narrow(x)).movedim(-1, 1)


def riffle(x, groups):
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class Interleaved(nn.Module):
    """Convolutions in four groups and in two, and between them the channels change places."""

    def __init__(self):
        super().__init__()
        self.root = nn.Conv2d(2, 32, kernel_size=2, stride=2)
        self.primary = nn.Conv2d(32, 64, 3, padding=1, groups=4, bias=False)
        self.primary_norm = nn.BatchNorm2d(64)
        self.secondary = nn.Conv2d(64, 32, 1, groups=2, bias=False)
        self.secondary_norm = nn.BatchNorm2d(32, affine=False)
        self.tail = nn.Conv2d(32, 24, 3, stride=2, groups=4)
        self.logits = nn.Conv2d(48, CLASSES, 1)

    def forward(self, x):
        x = F.elu(self.root(x))
        y = F.relu6(self.primary_norm(self.primary(x)))
        y = F.relu6(self.secondary_norm(self.secondary(riffle(y, 4))))
        x = F.elu(self.tail(riffle(torch.max(x, y), 2)))
        pooled = torch.cat((F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)), 1)
        return self.logits(pooled)[:, :, 0, 0]


class ByHand(nn.Module):
    """Weights in a dictionary of parameters, and functions; the last layer alone is a module."""

    def __init__(self):
        super().__init__()
        shapes = {"k1": (16, 1, 3, 3), "k2": (32, 16, 3, 3), "w3": (40, 128), "w4": (24, 40)}
        self.weights = nn.ParameterDict(
            {name: nn.init.kaiming_normal_(torch.empty(shape)) for name, shape in shapes.items()}
        )
        self.offsets = nn.ParameterDict(
            {name: torch.zeros(shape[0]) for name, shape in shapes.items()}
        )
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.top = nn.Linear(24, CLASSES)

    def forward(self, x):
        w, b = self.weights, self.offsets
        x = F.max_pool2d(F.conv2d(x, w["k1"], b["k1"], padding="same").relu(), 2)
        x = F.avg_pool2d(F.conv2d(x, w["k2"], b["k2"], padding=1).relu(), 3)
        x = F.relu(F.linear(x.reshape(len(x), -1), w["w3"], b["w3"]))
        x = F.relu(F.linear(x, w["w4"], b["w4"]))
        return self.top(self.gain * x)


def cascade():
    """A Sequential and nothing else: a vector becomes an image, a sequence, and a vector again."""
    return nn.Sequential(
        OrderedDict(
            fold=nn.Unflatten(1, (1, 8, 8)),
            image=nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1, padding_mode="reflect"),
                nn.LeakyReLU(0.2),
                nn.MaxPool2d(2),
                nn.Conv2d(16, 24, 3),
                nn.CELU(),
                nn.Flatten(),
            ),
            mid=nn.Sequential(nn.Linear(96, 60), nn.Dropout(0.1), nn.Unflatten(1, (12, 5))),
            sequence=nn.Sequential(nn.ConvTranspose1d(12, 16, 3), nn.Mish(), nn.Conv1d(16, 8, 3)),
            out=nn.Sequential(nn.Flatten(-2), nn.ReLU6(), nn.Linear(40, CLASSES)),
        )
    )


class Almanac(nn.Module):
    """``nn.TransformerEncoderLayer``, steps first and norms first, which sees no later step."""

    def __init__(self, steps=8, dim=32):
        super().__init__()
        self.project = nn.Linear(5, dim)
        self.season = nn.Embedding(steps, dim)
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    dim, 2, 40, dropout=0.05, activation=F.gelu, norm_first=True
                )
                for _ in range(2)
            )
        )
        self.final = nn.LayerNorm(dim)
        self.forecast = nn.Linear(dim, CLASSES)
        future = torch.full((steps, steps), -math.inf).triu(1)
        self.register_buffer("future", future)

    def forward(self, x):
        steps = torch.arange(x.size(1), device=x.device)
        x = (self.project(x) + self.season(steps)).transpose(0, 1)
        for layer in self.layers:
            x = layer(x, src_mask=self.future)
        return self.forecast(self.final(x)[-1])


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.down, self.up = nn.Linear(channels, 8), nn.Linear(8, channels)
        self.act, self.gate = nn.Hardswish(), nn.Hardsigmoid()

    def forward(self, x):
        g = self.gate(self.up(self.act(self.down(x.mean((-1, -2))))))
        return torch.einsum("nchw,nc->nchw", x, g)


class Herbarium(nn.Module):
    """Two kernels for each channel, squeezes, and a second head that only training uses."""

    def __init__(self):
        super().__init__()
        self.act = nn.Hardswish()
        self.stem = nn.Conv2d(1, 16, 3, 2, 1)
        self.tall = nn.Conv2d(16, 32, (5, 1), padding=(2, 0), groups=16, bias=False)
        self.wide = nn.Conv2d(32, 32, (1, 5), padding=(0, 2), groups=32, bias=False)
        self.bn = nn.BatchNorm2d(32)
        self.se1, self.se2 = Squeeze(32), Squeeze(24)
        self.point = nn.Conv2d(32, 24, 1)
        self.deep = nn.Conv2d(24, 24, 3, 2, 1, groups=24)
        self.drop = nn.Dropout2d(0.1)
        self.aux = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, CLASSES))
        self.main = nn.Linear(24, CLASSES)

    def forward(self, x):
        x = self.act(self.stem(x))
        x = self.se1(self.act(self.bn(self.wide(self.tall(x)))))
        middle = self.point(x)
        x = self.se2(self.act(self.deep(middle)))
        out = self.main(self.drop(x).flatten(2).amax(2))
        if self.training:
            out = out + 0.3 * self.aux(middle.mean((2, 3)))
        return out


class Named:
    """A data set whose inputs are dictionaries."""

    def __init__(self, inputs, labels):
        self.inputs, self.labels = inputs, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.inputs.items()}, self.labels[index]


@dataclass(frozen=True)
class Stranger:
    """A net and its task; ``shapes`` has the shape of its input, or of each by name.

    Where there are ``tokens``, inputs are texts of so many kinds, which count up by what the first
    one says, and labels are the next one of each.
    """

    make: object
    shapes: object
    tokens: int = 0

    def build(self, seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make().eval()

    def example(self):
        inputs, _ = self._samples(EXAMPLE, stream=9)
        return inputs

    def make_task(self):
        kind = Named if isinstance(self.shapes, dict) else ArrayDataset
        return Task(
            name="strange",
            train=kind(*self._samples(TRAIN, stream=1)),
            validation=kind(*self._samples(VALIDATION, stream=2)),
            test=kind(*self._samples(TEST, stream=3)),
        )

    def train(self):
        """The net once it has learned its task, as a stranger would bring it."""
        net, (inputs, labels) = self.build().train(), self._samples(TRAIN, stream=1)
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for _ in range(STEPS):
                optimizer.zero_grad()
                F.cross_entropy(forward(net, inputs), labels).backward()
                optimizer.step()
        return net.eval()

    def _samples(self, count, stream):
        generator = torch.Generator().manual_seed(stream)
        if self.tokens:
            start = torch.randint(self.tokens, (count, 1), generator=generator)
            texts = (start + (1 + start % 3) * torch.arange(self.shapes[0] + 1)) % self.tokens
            return texts[:, :-1].contiguous(), texts[:, 1:].contiguous()
        labels = torch.randint(CLASSES, (count,), generator=generator)
        draw = functools.partial(self._noisy, labels=labels, generator=generator)
        if isinstance(self.shapes, dict):
            return {name: draw(shape) for name, shape in self.shapes.items()}, labels
        return draw(self.shapes), labels

    @staticmethod
    def _noisy(shape, labels, generator):
        patterns = torch.randn(CLASSES, *shape, generator=torch.Generator().manual_seed(0))
        return patterns[labels] + NOISE * torch.randn(len(labels), *shape, generator=generator)


STRANGERS = {
    "gait-encoder": Stranger(GaitEncoder, (6, 48)),
    "seismograph": Stranger(Seismograph, (2, 64)),
    "keyword-spotter": Stranger(KeywordSpotter, (1, 24, 10)),
    "sky-and-station": Stranger(SkyAndStation, {"sky": (1, 10, 10), "readings": (6,)}),
    "recorder": Stranger(Recorder, (9,), tokens=12),
    "interleaved": Stranger(Interleaved, (2, 12, 12)),
    "by-hand": Stranger(ByHand, (1, 12, 12)),
    "cascade": Stranger(cascade, (64,)),
    "almanac": Stranger(Almanac, (8, 5)),
    "herbarium": Stranger(Herbarium, (1, 14, 14)),
}
