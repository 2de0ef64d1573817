"""Effects: slow filters of images, which teach fast nets (the task ``image-to-image``).

An effect is called as ``teacher(image, controls)``. The image is ``(height, width, 3)``, red, green
and blue in bytes (``numpy.uint8``); controls are numbers by name, such as ``{"strength": 0.5}``. It
returns an image of the same size: a numpy array or a torch tensor, ``(height, width, 3)``, in bytes
or in floating-point numbers from 0 to 1. One that is made once and called often is a class, whose
arguments are the options of a recipe; of a function they are keyword arguments after the two.

Adding an effect is one file and one line of ``EFFECTS``. Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["EFFECTS"]

#: Name -> ``module:function`` or ``module:Class``.
EFFECTS: Mapping[str, str] = MappingProxyType(
    {
        "diffusion": "compress.effects.diffusion:Diffusion",
        "oil-paint": "compress.effects.oil_paint:OilPaint",
        "style-transfer": "compress.effects.style_transfer:StyleTransfer",
    }
)
