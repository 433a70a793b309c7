"""An affine map that no neighbour takes in becomes a layer of its own."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq_quant.editors.canonicalise.diagonal import diagonal
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, set_module
from dianaq_quant.modules.structure import Affine


class AffineToLayer(Editor):
    """`s * x + t -> diagonal(s) x + t`: a 1x1 convolution that keeps channels apart, or a diagonal matrix for vectors.

    What a BatchNorm without a layer before it becomes as well. A convolution after it that pads with zeros pads what
    this layer gives, as the network had it.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, affine in calls(network, Affine):
            assert isinstance(affine, Affine)
            if affine.dim != 1 or len(node.meta["shape"]) not in (1, 3):
                yield Rejection(node, "is not per channel of a map or per value of a vector")
            else:
                yield Point((node,), "no layer can take it in: became a layer that scales each channel by itself")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        affine, shape = module_of(network, node), node.meta["shape"]
        assert isinstance(affine, Affine)
        scale, shift = (v.expand(shape[0]).float() for v in (affine.scale, affine.shift))
        bias = shift if bool((shift != 0).any()) else None
        node.meta["inserted"] = True
        set_module(network, node, diagonal(scale, bias, spatial=len(shape) == 3))
