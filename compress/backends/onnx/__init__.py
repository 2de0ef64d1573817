"""Lowering: from a candidate to an ONNX file in the formats that it declares.

The only place that writes ONNX. ``lower`` makes an artifact; ``take_census`` says what any ONNX
file is made of, without torch. Both are looked up on first use, so that a device or a report that
needs the census alone does not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.backends.onnx.build import lower
    from compress.backends.onnx.census import take_census

__all__ = ["lower", "take_census"]


def __getattr__(name: str) -> Any:
    if name == "lower":
        from compress.backends.onnx.build import lower

        return lower
    if name == "take_census":
        from compress.backends.onnx.census import take_census

        return take_census
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
