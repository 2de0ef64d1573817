"""Pairs in memory as a data set, and how both images of a pair are mirrored at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.errors import DataError
from compress.modules.inputs import Inputs
from compress.training.labels import Labels

__all__ = ["MirroredPairs", "PairDataset"]


class PairDataset:
    """Pairs of images kept as bytes, and given as numbers from 0 to 1; labels are the second ones.

    Args:
        images: ``(n, 3, height, width)`` in bytes.
        made: the teacher's, of the same shape.
        controls: ``(n, 1)`` each, by name; inputs are then by name, with the ``image``.
    """

    def __init__(self, images: Tensor, made: Tensor, controls: Mapping[str, Tensor]) -> None:
        self.images, self.made, self.controls = images, made, dict(controls)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> tuple[Inputs, Tensor]:
        """One sample: an image, with controls by name if there are any, and what is made of it."""
        return self._given(index)

    def __getitems__(self, indices: Sequence[int], /) -> tuple[Inputs, Tensor]:
        """The same for a batch."""
        return self._given(torch.as_tensor(indices, dtype=torch.int64))

    def first(self, count: int) -> PairDataset:
        """The first so many pairs."""
        controls = {name: values[:count] for name, values in self.controls.items()}
        return PairDataset(self.images[:count], self.made[:count], controls)

    def _given(self, at: int | Tensor) -> tuple[Inputs, Tensor]:
        image, made = self.images[at].float() / 255, self.made[at].float() / 255
        if not self.controls:
            return image, made
        return {"image": image, **{name: each[at] for name, each in self.controls.items()}}, made


@dataclass(frozen=True)
class MirroredPairs:
    """Mirrors half of the pairs of a batch left to right, the teacher's images with the others.

    What a teacher makes of a mirrored image is taken to be the mirror of what it makes of it.
    """

    def pair(
        self, inputs: Inputs, labels: Labels | None, generator: torch.Generator
    ) -> tuple[Inputs, Labels | None]:
        """The batch, mirrored in part, and its labels likewise.

        Raises:
            DataError: labels that are no images.
        """
        images = inputs["image"] if isinstance(inputs, dict) else inputs
        if not isinstance(labels, Tensor) or labels.dim() != 4:
            raise DataError("mirrored pairs are pairs of images; the labels are none.")
        sides = torch.randint(2, (len(images), 1, 1, 1), generator=generator).bool()
        sides = sides.to(images.device)
        mirrored = torch.where(sides, images.flip(3), images)
        found = torch.where(sides, labels.flip(3), labels)
        return ({**inputs, "image": mirrored} if isinstance(inputs, dict) else mirrored), found
