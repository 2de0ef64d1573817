"""Autoencoder: an hourglass of fully connected layers, for anomalies in machine sounds.

Topology: the baseline of DCASE 2020 task 2 (Koizumi et al. 2020, "Description and Discussion on
DCASE2020 Challenge Task2"), which is the anomaly detector of MLPerf Tiny (Banbury et al. 2021,
"MLPerf Tiny Benchmark"; github.com/mlcommons/tiny, anomaly_detection). What it fails to reproduce
is the anomaly.

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Autoencoder"]


class Autoencoder(nn.Module):
    """Inputs ``(n, in_features)`` to outputs ``(n, classes)``; 267,928 parameters by default.

    Args:
        in_features: values in one input.
        classes: values in one output; as many as in an input for a reconstruction.
        width: units of each hidden layer.
        depth: hidden layers on either side of the bottleneck.
        bottleneck: units in the middle.
    """

    def __init__(
        self,
        *,
        in_features: int = 640,
        classes: int = 640,
        width: int = 128,
        depth: int = 4,
        bottleneck: int = 8,
    ) -> None:
        super().__init__()
        widths = [*[width] * depth, bottleneck, *[width] * depth]
        before = [in_features, *widths[:-1]]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(before, widths, strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm1d(units) for units in widths)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of each input."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(x)))
        outputs: Tensor = self.head(x)
        return outputs
