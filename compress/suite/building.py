"""Nets of a suite as candidates, with trained weights or with seeded ones.

Owns where weights come from and what each net is fed with. Knows nothing of targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.candidate import Candidate, load_weights
from compress.config.recipe_file import located
from compress.errors import RecipeError
from compress.models.huggingface import build_hub_model, load_folder, read_architecture
from compress.modules.inputs import Inputs, at_batch, forward
from compress.suite.nets import Net
from compress.zoo import build

__all__ = ["RANDOM", "SuiteModel", "build_net", "check_weights"]

Array = np.ndarray[Any, Any]

#: What ``SuiteModel.weights`` is where they come from the seed.
RANDOM = "random"
_SAMPLES = 32


@dataclass(frozen=True)
class SuiteModel:
    """A net with its weights.

    Args:
        candidate: in float32.
        inputs: to calibrate and check it with.
        measured: inputs to measure it with, by name; empty where the device may draw them, which
            does for images and not for tokens.
        weights: ``RANDOM``, or where they were read.
    """

    candidate: Candidate
    inputs: Inputs
    measured: Mapping[str, Array]
    weights: str


def check_weights(nets: Sequence[Net], weights: Path | None) -> None:
    """Check that a folder has weights for one of ``nets``.

    Raises:
        RecipeError: it has none.
    """
    names = [net.name for net in nets if not net.is_encoder]
    if weights is not None and not any(_file_of(name, weights).is_file() for name in names):
        raise RecipeError(
            f"{weights}: there is no NET.safetensors in it for a net of the suite; those that can "
            f"have one are {', '.join(names)}."
        )


def _file_of(net: str, weights: Path) -> Path:
    return weights / f"{net}.safetensors"


def build_net(net: Net, folder: Path | None, seed: int) -> SuiteModel:
    """The net with trained weights where there are some, or with seeded ones.

    Args:
        net: of a suite.
        folder: may have its weights, as ``NET.safetensors``.
        seed: of random weights, and of inputs.

    Raises:
        RecipeError: an encoder's folder that is not there, or holds no encoder for such texts.
        CheckpointError: weights that do not fit.
        MissingExtra: an encoder, without transformers.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        if net.is_encoder:
            return _encoder(net)
        module = build(net.arch, net.options)
        inputs = torch.randn(_SAMPLES, *net.shape)
        path = None if folder is None else _file_of(net.name, folder)
        if path is not None and path.is_file():
            load_weights(module, path)
            weights = str(path)
        else:
            _settle(module, inputs)
            weights = RANDOM
    return SuiteModel(Candidate.of(module, inputs[:2]), inputs, {}, weights)


def _encoder(net: Net) -> SuiteModel:
    """An encoder with its weights, and texts of random tokens that fill their length."""
    named = str(net.options["folder"])
    folder = located(Path(named))
    encoder = build_hub_model(read_architecture(folder).options)
    load_folder(encoder, folder)
    model: Any = encoder.model
    tokens = torch.randint(model.get_input_embeddings().num_embeddings, (_SAMPLES, *net.shape))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    example = at_batch(inputs, 2)
    try:
        forward(encoder, example)
    except (IndexError, RuntimeError) as error:  # what torch says of a position beyond the last
        raise RecipeError(
            f"{named}: the encoder does not take texts of {net.shape[0]} tokens ({error})."
        ) from error
    return SuiteModel(
        candidate=Candidate.of(encoder, example),
        inputs=inputs,
        measured={name: tensor.numpy() for name, tensor in inputs.items()},
        weights=named,
    )


def _settle(module: nn.Module, inputs: Tensor) -> None:
    """Run data through the norms, as a trained net's have.

    Fresh ones pass on what random weights make of an input, which is less in every layer: at the
    end of a deep net the biases would be all that is left, and parity would compare nothing.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None  # the average of what is seen, and nothing of the start
    module.train()(inputs)
