"""MLP: fully connected layers over a flattened input.

Topology: the multilayer perceptron of Rumelhart, Hinton and Williams 1986, with rectified units
(Nair and Hinton 2010).

Knows nothing of tasks, formats or pruning.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MLP"]


class MLP(nn.Module):
    """Inputs ``(n, ...)`` of ``in_features`` values each to logits ``(n, classes)``.

    Args:
        in_features: values in one input, all dimensions together.
        classes: length of the logits.
        width: units in each hidden layer.
        depth: how many hidden layers follow each other.
    """

    def __init__(
        self, *, in_features: int = 784, classes: int = 10, width: int = 64, depth: int = 2
    ) -> None:
        super().__init__()
        before = [in_features, *[width] * (depth - 1)]
        self.layers = nn.ModuleList(nn.Linear(features, width) for features in before)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each input."""
        x = x.flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        logits: Tensor = self.head(x)
        return logits
