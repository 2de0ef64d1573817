"""Decoding: how a net that scores the next token continues a text.

A text is a window ``(n, length)`` of tokens whose first ones are given. Every token takes a forward
pass over all those before it; keys and values are not cached, so that any net will do.
:func:`padded` is for a net that takes a single length, such as a file for a device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["NextToken", "beam_search", "padded", "sample"]

#: From tokens ``(n, length)``, scores of the token after each place, ``(n, classes, length)``; each
#: depends on the tokens up to there.
NextToken = Callable[[Tensor], Tensor]


@torch.no_grad()
def beam_search(net: NextToken, windows: Tensor, start: int, count: int, beams: int = 1) -> Tensor:
    """The likeliest continuation that a search with ``beams`` finds; with one beam it is greedy.

    All continuations have one length, so that none is favored for being short: an end mark is a
    token like any other.

    Args:
        net: scores the next token.
        windows: tokens ``(n, length)``; not changed.
        start: how many tokens at the front of each are given.
        count: how many to generate; ``start + count`` is at most ``length``.
        beams: how many continuations are kept at a time.

    Returns:
        The generated tokens, ``(n, count)``.
    """
    rows = len(windows)
    texts, totals = windows.clone(), torch.zeros(rows, 1, device=windows.device)
    for place in range(start, start + count):
        scores = net(texts[:, :place])[:, :, -1].log_softmax(1)
        classes, live = scores.shape[1], totals.shape[1]
        joint = (totals.view(rows, live, 1) + scores.view(rows, live, classes)).flatten(1)
        totals, chosen = joint.topk(min(beams, live * classes), dim=1)
        first = live * torch.arange(rows, device=windows.device).unsqueeze(1)
        texts = texts[(first + chosen // classes).flatten()]
        texts[:, place] = (chosen % classes).flatten()
    best = texts.view(rows, -1, windows.shape[1])[:, 0]
    return best[:, start : start + count]


@torch.no_grad()
def sample(net: NextToken, windows: Tensor, start: int, count: int) -> Tensor:
    """A continuation drawn token by token from the net's probabilities, by torch's generator.

    Arguments and result are those of :func:`beam_search`.
    """
    texts = windows.clone()
    for place in range(start, start + count):
        probabilities = net(texts[:, :place])[:, :, -1].softmax(1)
        texts[:, place] = torch.multinomial(probabilities, 1).squeeze(1)
    return texts[:, start : start + count]


def padded(net: NextToken, length: int) -> NextToken:
    """The net on texts of ``length`` only: shorter ones are padded behind their end.

    Args:
        net: must be causal, so that padding does not change its scores.
        length: that it takes.
    """

    def forward(texts: Tensor) -> Tensor:
        given = texts.shape[1]
        return net(F.pad(texts, (0, length - given)))[:, :, :given]

    return forward
