"""Features of a file: what its last product takes, as an output beside its own. No torch."""

from __future__ import annotations

from pathlib import Path

import onnx

from compress.backends.onnx.files import save
from compress.errors import LoweringError, in_words

__all__ = ["expose_features"]

_PRODUCTS = frozenset(
    {
        *("Conv", "Gemm", "MatMul", "ConvInteger", "MatMulInteger", "MatMulNBits"),
        *("QLinearConv", "QLinearMatMul"),
    }
)
# What only changes the type of numbers: features are those before it.
_ENCODINGS = frozenset({"Cast", "DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})


def expose_features(source: Path, place: Path, output: str | None = None) -> str:
    """Write a file with one more output, the last: what its last product takes.

    That is a MatMul, a Gemm or a Conv, in integers or not, the last one that an output depends on;
    what it takes are features before they are rounded.

    Args:
        source: the file.
        place: where to.
        output: that depends on the product; ``None`` for the first.

    Returns:
        The name of the new output.

    Raises:
        LoweringError: no such product, or it takes the file's own input.
        StorageError: the disk refused.
    """
    try:
        model = onnx.load(str(source))
    except Exception as error:  # whatever protobuf raises for bytes that are none of its own
        raise LoweringError(f"{source}: it cannot be read as ONNX ({in_words(error)}).") from error
    graph = model.graph
    by_output = {name: node for node in graph.node for name in node.output if name}
    constants = {tensor.name for tensor in graph.initializer}
    product = _last_product(graph, by_output, output or graph.output[0].name)
    name = product.input[0] if product is not None else ""
    while name in by_output and by_output[name].op_type in _ENCODINGS:
        name = by_output[name].input[0]
    if name not in by_output or name in constants:
        raise LoweringError(
            f"{source}: there is no MatMul, Gemm or Conv between its inputs and outputs that takes "
            "features, so that no distance of features tells how sure it is; give another --score, "
            "such as probability."
        )
    if name not in {each.name for each in graph.output}:
        graph.output.append(onnx.ValueInfoProto(name=name))
    save(model, place)
    return str(name)


def _last_product(
    graph: onnx.GraphProto, by_output: dict[str, onnx.NodeProto], output: str
) -> onnx.NodeProto | None:
    """The last operator in the graph's order that is a product and that the output depends on."""
    needed, names = set(), [output]
    while names:
        name = names.pop()
        if name in by_output and name not in needed:
            needed.add(name)
            names += by_output[name].input
    products = [
        node
        for node in graph.node
        if node.op_type in _PRODUCTS and needed.intersection(node.output)
    ]
    return products[-1] if products else None
