"""Nets over time: causal and gated convolutions, GRU and LSTM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.testing.structures.structure import Structure

__all__ = ["RECURRENT"]


class _GatedResidual(nn.Module):
    def __init__(self, channels: int, skip: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            channels, 2 * channels, kernel_size=2, dilation=dilation, padding=dilation
        )
        self.residual = nn.Conv1d(channels, channels, 1)
        self.skip = nn.Conv1d(channels, skip, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)[..., : x.size(-1)]
        half = y.size(1) // 2
        z = torch.tanh(y[:, :half]) * torch.sigmoid(y[:, half:])
        return x + self.residual(z), self.skip(z)


class WaveNet(nn.Module):
    """WaveNet (van den Oord et al., 2016): dilated causal convolutions with gates and skips."""

    def __init__(self) -> None:
        super().__init__()
        self.causal = nn.Conv1d(2, 24, 2)
        self.layers = nn.ModuleList(_GatedResidual(24, 32, 2**i) for i in range(3))
        self.out1 = nn.Conv1d(32, 32, 1)
        self.out2 = nn.Conv1d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the last step."""
        x = self.causal(F.pad(x, (1, 0)))
        skips: list[Tensor] = []
        for layer in self.layers:
            x, skip = layer(x)
            skips.append(skip)
        x = F.relu(sum(skips[1:], skips[0]))
        logits: Tensor = self.out2(F.relu(self.out1(x)))
        return logits[:, :, -1]


class _Chomp1d(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.size].contiguous()


class _TemporalBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, dilation: int, kernel: int = 3) -> None:
        super().__init__()
        padding = (kernel - 1) * dilation
        self.net = nn.Sequential(
            nn.Conv1d(inputs, outputs, kernel, padding=padding, dilation=dilation),
            _Chomp1d(padding),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv1d(outputs, outputs, kernel, padding=padding, dilation=dilation),
            _Chomp1d(padding),
            nn.ReLU(),
            nn.Dropout(0.1),
        )
        self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        res = x if self.downsample is None else self.downsample(x)
        return F.relu(self.net(x) + res)


class TCN(nn.Module):
    """Temporal convolutional net (Bai et al., 2018): padded on both sides, cut on one."""

    def __init__(self) -> None:
        super().__init__()
        widths = [2, 24, 24, 32]
        self.network = nn.Sequential(
            *(_TemporalBlock(widths[i], widths[i + 1], dilation=2**i) for i in range(3))
        )
        self.linear = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the last step."""
        logits: Tensor = self.linear(self.network(x)[:, :, -1])
        return logits


class CRNN(nn.Module):
    """CRNN (Shi et al., 2017): the columns of a convolution's output are the steps of a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(True),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(16, 24, 3, padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(True),
            nn.MaxPool2d((2, 1)),
        )
        self.rnn = nn.GRU(24 * 4, 40, batch_first=True)
        self.fc = nn.Linear(40, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits after the last column."""
        x = self.cnn(x)
        b, c, h, w = x.size()
        x = x.permute(0, 3, 1, 2).reshape(b, w, c * h)
        out, _ = self.rnn(x)
        logits: Tensor = self.fc(out[:, -1])
        return logits


class ConvBiLSTM(nn.Module):
    """Convolutions, and an LSTM in both directions, as in DeepSpeech 2 (Amodei et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(6, 32, 5, padding=2)
        self.bn1 = nn.BatchNorm1d(32)
        self.conv2 = nn.Conv1d(32, 24, 3, stride=2, padding=1)
        self.lstm = nn.LSTM(24, 24, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1)
        self.fc1 = nn.Linear(48, 32)
        self.fc2 = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.conv2(x)).permute(0, 2, 1)
        x, _ = self.lstm(x)
        logits: Tensor = self.fc2(F.relu(self.fc1(x.mean(dim=1))))
        return logits


class TokenLSTM(nn.Module):
    """LSTM classifier of text (Hochreiter and Schmidhuber, 1997): its last hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 32)
        self.lstm = nn.LSTM(32, 48, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(48, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x = self.embedding(tokens)
        _, (hidden, _) = self.lstm(x)
        logits: Tensor = self.fc(self.dropout(hidden[-1]))
        return logits


#: The structures of this family.
RECURRENT = (
    Structure("wavenet", WaveNet, (2, 32), must_cut=True),
    Structure("tcn", TCN, (2, 32), must_cut=True),
    Structure("crnn", CRNN, (1, 16, 16), must_cut=True),
    Structure("conv-bilstm", ConvBiLSTM, (6, 24), must_cut=True),
    Structure("token-lstm", TokenLSTM, (12,), must_cut=True, tokens=30),
)
