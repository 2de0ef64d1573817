"""Models of images and of audio that give one tensor: the logits of a classifier.

Own what their batch is, a tensor by itself, under the name that transformers has for it. Know
nothing of folders, and no library but torch.
"""

from __future__ import annotations

from torch import Tensor, nn

from compress.errors import DataError

__all__ = ["AudioClassifier", "ImageClassifier"]


class ImageClassifier(nn.Module):
    """A transformer of images: ``pixel_values`` ``(n, channels, height, width)`` to logits.

    Args:
        model: takes ``pixel_values``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the model takes, as transformers calls it."""
        return ("pixel_values",)

    @property
    def output_name(self) -> str:
        """What transformers calls the output that is needed of the model."""
        return "logits"

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits ``(n, classes)``.

        Raises:
            DataError: no batch of floats on four axes.
        """
        if pixel_values.dim() != 4 or not pixel_values.is_floating_point():
            raise DataError(
                f"the batch is {str(pixel_values.dtype).removeprefix('torch.')} of shape "
                f"{tuple(pixel_values.shape)}; a model of images takes floats of shape (samples, "
                "channels, height, width)."
            )
        return _logits(self.model(pixel_values=pixel_values))


class AudioClassifier(nn.Module):
    """A transformer of audio: ``input_values`` to logits.

    Args:
        model: takes ``input_values``: samples of sound ``(n, samples)``, or a spectrogram
            ``(n, time, bins)``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the model takes, as transformers calls it."""
        return ("input_values",)

    @property
    def output_name(self) -> str:
        """What transformers calls the output that is needed of the model."""
        return "logits"

    def forward(self, input_values: Tensor) -> Tensor:
        """Logits ``(n, classes)``.

        Raises:
            DataError: no batch of floats on two or three axes.
        """
        if input_values.dim() not in (2, 3) or not input_values.is_floating_point():
            raise DataError(
                f"the batch is {str(input_values.dtype).removeprefix('torch.')} of shape "
                f"{tuple(input_values.shape)}; a model of audio takes floats of shape (n, "
                "samples), or (n, time, bins)."
            )
        return _logits(self.model(input_values=input_values))


def _logits(answer: object) -> Tensor:
    logits = getattr(answer, "logits", None)
    if not isinstance(logits, Tensor):
        raise DataError(
            "the model gives no logits; wrap it in a module that returns one tensor, and give that "
            "as `arch: module:name`."
        )
    return logits
