"""Which layer's product a fused operator computes.

A runtime fuses a product with what follows it, and calls the whole by the last of these: an
activation, which belongs to the module around the layer. From there the file's own graph is
followed back to the product.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from compress.backends.onnx.operators import PRODUCTS
from compress.measure.profile.graph import Graph, GraphNode, written_names

__all__ = ["layers_of_products"]

_MOST_HOPS = 6


def layers_of_products(
    running: Graph, source: Graph, modules: Sequence[str | None], layers: Collection[str]
) -> dict[int, str]:
    """The layer of each product of the running graph, by the number of its node.

    Args:
        running: the graph that runs.
        source: the file's.
        modules: of the nodes of ``source``.
        layers: by path; a product that none of them is known to make is left out.
    """
    makers = {name: place for place, node in enumerate(source.nodes) for name in node.outputs}
    names = {node.name: place for place, node in enumerate(source.nodes) if node.name}

    def layer_at(place: int) -> str | None:
        module = modules[place]
        if module is None or source.nodes[place].operator not in PRODUCTS:
            return None
        inside = [one for one in layers if module == one or module.startswith(f"{one}.")]
        return max(inside, key=len, default=None)

    def candidates(node: GraphNode) -> list[str]:
        """Layers whose products come before what the node is called by, the nearest first."""
        known = [at for n in written_names(node) for at in (names.get(n), makers.get(n))]
        front = list(dict.fromkeys(at for at in known if at is not None))
        for _ in range(_MOST_HOPS):
            found = [layer for at in front if (layer := layer_at(at)) is not None]
            if found:
                return list(dict.fromkeys(found))
            # A product that is no layer's, as that of attention, ends the way back.
            read = [n for at in front if not _ends(source, at) for n in source.nodes[at].inputs]
            front = list(dict.fromkeys(makers[name] for name in read if name in makers))
        return []

    products = {i: candidates(n) for i, n in enumerate(running.nodes) if n.operator in PRODUCTS}
    found = {place: own[0] for place, own in products.items() if len(own) == 1}
    for place, own in products.items():
        # Of a sum of two products one has a node of its own, and the other is fused with the sum.
        left = [layer for layer in own if layer not in found.values()]
        if len(own) > 1 and len(left) == 1:
            found[place] = left[0]
    return found


def _ends(source: Graph, place: int) -> bool:
    return source.nodes[place].operator in PRODUCTS
