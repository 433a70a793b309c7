"""The geometry of a convolution, a fully connected layer and a pool, as the file's attributes tell it."""

from __future__ import annotations

from dianaq_quant.export.check.graph import Graph, Node

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def size_of(graph: Graph, tensor: str) -> Pair:
    """Height and width of a map; 1x1 for a vector, and for what has no fixed shape (a finding of its own)."""
    shape = graph.shape(tensor)
    return (shape[2], shape[3]) if shape is not None and len(shape) == 4 else (1, 1)


def channels_of(graph: Graph, tensor: str) -> int:
    """Channels of a map, or features of a vector; 0 where the shape is not fixed."""
    shape = graph.shape(tensor)
    return shape[1] if shape is not None and len(shape) > 1 else 0


def pair(node: Node, attribute: str) -> Pair:
    """An attribute of two numbers whose default is 1, 1."""
    found = node.attributes.get(attribute) or (1, 1)
    return int(found[0]), int(found[-1])


def pads_of(graph: Graph, node: Node, kernel: Pair) -> Pads:
    """Rows and columns padded: top, left, bottom, right, by `pads` or by `auto_pad`."""
    auto = node.attributes.get("auto_pad", b"NOTSET").decode()
    if not auto.startswith("SAME"):
        found = node.attributes.get("pads") if auto == "NOTSET" else None
        top, left, bottom, right = found if found is not None and len(found) == 4 else (0, 0, 0, 0)
        return int(top), int(left), int(bottom), int(right)
    sizes, strides, dilation = size_of(graph, node.inputs[0]), pair(node, "strides"), pair(node, "dilations")
    starts, ends = [], []
    for size, stride, step, k in zip(sizes, strides, dilation, kernel, strict=True):
        total = max((-(-size // stride) - 1) * stride + step * (k - 1) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        starts.append(small if auto == "SAME_UPPER" else large)
        ends.append(large if auto == "SAME_UPPER" else small)
    return starts[0], starts[1], ends[0], ends[1]
