"""Handwritten digits, and a small convolutional network for them: what the demo quantises. No torch needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

CLASSES = 10
SIDE = 8
LEVELS = 16
"""The images of this data set (Alpaydin and Kaynak, 1998) hold 0 to 16: counts of set pixels in blocks of 4 x 4."""

SPLITS = {"train": 1197, "val": 200, "test": 400}
"""All 1,797 images. A test set of 400 tells accuracies apart that differ by about a point."""

Array = NDArray[np.generic]


def digits(seed: int = 0) -> dict[str, Array]:
    """Images as uint8 (N, 8, 8) and labels, shuffled by the seed and split: `x_train`, `y_train`, `x_val`, ..."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    x = np.round(images.reshape(-1, SIDE, SIDE) * (255 / LEVELS)).astype(np.uint8)[order]
    y = labels.astype(np.uint8)[order]
    arrays: dict[str, Array] = {}
    start = 0
    for split, samples in SPLITS.items():
        arrays[f"x_{split}"], arrays[f"y_{split}"] = x[start : start + samples], y[start : start + samples]
        start += samples
    return arrays


class _Builder:
    """Nodes and initialisers of a graph that grows from its input to its output."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def weight(self, name: str, values: Array) -> str:
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def he_normal(self, name: str, shape: tuple[int, ...]) -> str:
        """Weights of the variance that keeps a rectified network's activations in size (He et al., 2015)."""
        fan_in = int(np.prod(shape[1:]))
        return self.weight(name, self._random.normal(0.0, np.sqrt(2 / fan_in), shape))

    def node(self, operator: str, name: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def conv(self, name: str, x: str, channels: tuple[int, int], stride: int = 1) -> str:
        """A 3 x 3 convolution and its BatchNorm."""
        into, out = channels
        kernel = self.he_normal(f"{name}.weight", (out, into, 3, 3))
        conv = self.node("Conv", name, [x, kernel], pads=[1] * 4, strides=[stride] * 2, kernel_shape=[3, 3])
        start = {"scale": 1.0, "bias": 0.0, "mean": 0.0, "var": 1.0}
        norm = [self.weight(f"{name}.bn.{what}", np.full(out, value)) for what, value in start.items()]
        return self.node("BatchNormalization", f"{name}.bn", [conv, *norm])

    def relu(self, name: str, x: str) -> str:
        return self.node("Relu", name, [x])


def digits_network(seed: int = 0) -> onnx.ModelProto:
    """An untrained network, (N, 1, 8, 8) -> (N, 10): a convolution, a residual block, a strided convolution, a head."""
    g = _Builder(seed)
    stem = g.relu("stem.relu", g.conv("stem", "image", (1, 16)))
    inner = g.relu("block.relu1", g.conv("block.conv1", stem, (16, 16)))
    block = g.relu("block.relu2", g.node("Add", "block.add", [g.conv("block.conv2", inner, (16, 16)), stem]))
    down = g.relu("down.relu", g.conv("down", block, (16, 32), stride=2))
    pooled = g.node("Flatten", "flatten", [g.node("GlobalAveragePool", "pool", [down])])
    head = g.he_normal("head.weight", (CLASSES, 32))
    g.node("Gemm", "logits", [pooled, head, g.weight("head.bias", np.zeros(CLASSES))], transB=1)
    graph = helper.make_graph(
        g.nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        g.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_files(folder: Path) -> tuple[Path, Path]:
    """The network and the data as files that a user would upload: an ONNX file and an npz file."""
    folder.mkdir(parents=True, exist_ok=True)
    model, dataset = folder / "digits.onnx", folder / "digits.npz"
    onnx.save(digits_network(), model)
    np.savez_compressed(dataset, **digits())  # type: ignore[arg-type]
    return model, dataset
