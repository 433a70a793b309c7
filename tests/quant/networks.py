"""Random float networks and datasets, as hypothesis strategies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import strategies as st

from .builder import ModelBuilder, Tensor

MAX_STEPS = 7


@dataclass(frozen=True)
class Case:
    """A model, samples of its input, and whether its weights have usual magnitudes."""

    model: onnx.ModelProto
    x: np.ndarray
    tame: bool
    seed: int

    def __repr__(self) -> str:
        nodes = "\n".join(
            f"  {n.name} = {n.op_type}({', '.join(n.input)}) -> {n.output[0]}" for n in self.model.graph.node
        )
        return f"Case(seed={self.seed}, tame={self.tame}, input={self.x.shape[1:]}\n{nodes})"


class _Grower:
    """Adds random operators to a model; `live` are the maps that later operators may read."""

    def __init__(self, draw: st.DrawFn, builder: ModelBuilder, tame: bool) -> None:
        self.draw, self.build, self.tame = draw, builder, tame
        self.live = [builder.input]

    def chance(self) -> bool:
        return self.draw(st.booleans())

    def scale(self) -> float:
        if self.tame:
            return 1.0
        return self.draw(st.sampled_from([1.0, 1.0, 1.0, 1.0, 1e-8, 1e-4, 1e-2, 30.0, 1e3, 0.0]))

    def dead(self, channels: int) -> list[int]:
        return [] if self.tame or not self.chance() else self.draw(st.lists(st.integers(0, channels - 1), max_size=2))

    def pick(self) -> Tensor:
        """Mostly the newest tensor, sometimes an older one."""
        return self.live[-1] if self.draw(st.integers(0, 3)) else self.draw(st.sampled_from(self.live))

    def conv(self, x: Tensor) -> Tensor:
        kind = self.draw(st.sampled_from(["plain", "plain", "pointwise", "depthwise", "grouped"]))
        size = [min(self.draw(st.integers(1, 3)), x.shape[1 + i]) for i in (0, 1)]
        if kind == "pointwise":
            size = [1, 1]
        kernel = (size[0], size[1])
        group, channels = 1, self.draw(st.integers(1, 6))
        if kind == "depthwise":
            group = x.shape[0]
            channels = group * self.draw(st.integers(1, 2))
        elif kind == "grouped" and x.shape[0] % 2 == 0:
            group, channels = 2, 2 * self.draw(st.integers(1, 3))
        dilation = (1, 1)
        if self.draw(st.integers(0, 5)) == 0 and all(2 * (k - 1) < s for k, s in zip(kernel, x.shape[1:], strict=True)):
            dilation = (2, 2)
        pads = tuple(self.draw(st.integers(0, k - 1)) for k in kernel * 2)
        auto = self.draw(st.sampled_from([None, None, None, "SAME_UPPER", "SAME_LOWER", "VALID"]))
        return self.build.conv(
            x,
            channels,
            kernel,
            stride=self.draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2)])),
            pads=(pads[0], pads[1], pads[2], pads[3]),
            dilation=dilation if auto is None else (1, 1),
            group=group,
            bias=self.chance(),
            auto_pad=auto,
            scale=self.scale(),
            bias_scale=self.scale(),
            dead=self.dead(channels),
        )

    def layer(self, x: Tensor) -> Tensor:
        """A convolution, usually with what follows one."""
        y = self.conv(x)
        if self.chance():
            y = self.batch_norm(y)
        if self.chance():
            y = self.draw(st.sampled_from([self.build.relu, self.build.relu, self.build.relu6]))(y)
        return y

    def batch_norm(self, x: Tensor) -> Tensor:
        return self.build.batch_norm(x, gain=self.scale() or 1.0, dead=self.dead(x.shape[0]))

    def add(self, x: Tensor) -> Tensor:
        others = [t for t in self.live if t.shape == x.shape]
        other = self.draw(st.sampled_from(others))
        if other is x and self.chance():  # a residual block, so that additions of two tensors are common
            other = self.build.conv(x, x.shape[0], (1, 1), scale=self.scale())
        return self.build.add(*self.draw(st.permutations([x, other])))

    def window(self, x: Tensor) -> tuple[int, int]:
        return min(2, x.shape[1]), min(self.draw(st.integers(1, 3)), x.shape[2])

    def max_pool(self, x: Tensor) -> Tensor:
        kernel = self.window(x)
        pads = (kernel[0] // 2, kernel[1] // 2, 0, 0) if self.chance() else (0, 0, 0, 0)
        return self.build.pool("MaxPool", x, kernel, stride=self.draw(st.sampled_from([(1, 1), (2, 2)])), pads=pads)

    def average_pool(self, x: Tensor) -> Tensor:
        if self.draw(st.integers(0, 2)) == 0:
            return self.build.pool("AveragePool", x, (x.shape[1], x.shape[2]))
        if self.chance():
            kernel = self.window(x)
            pads = (kernel[0] // 2, kernel[1] // 2, 0, 0)
            return self.build.pool("AveragePool", x, kernel, pads=pads, count_include_pad=1)
        return self.build.pool("AveragePool", x, self.window(x), stride=self.draw(st.sampled_from([(1, 1), (2, 2)])))

    def mean(self, x: Tensor) -> Tensor:
        return self.draw(st.sampled_from([self.build.global_pool, lambda t: self.build.reduce_mean(t, keepdims=True)]))(
            x
        )

    def pass_on(self, x: Tensor) -> Tensor:
        return self.build.node(self.draw(st.sampled_from(["Identity", "Dropout"])), [x], x.shape)

    def step(self) -> None:
        x = self.pick()
        kinds = [self.layer] * 6 + [self.add] * 4 + [self.max_pool, self.average_pool, self.batch_norm]
        kinds += [self.build.relu, self.build.relu6, self.pass_on, self.mean]
        y = self.draw(st.sampled_from(kinds))(x)
        self.live.append(y)

    def head(self) -> Tensor:
        """From a map to a vector of classes."""
        x = self.live[-1]
        ends = [self.build.flatten, lambda t: self.build.reshape(t, [-1, int(np.prod(t.shape))])]
        ends += [lambda t: self.build.flatten(self.build.global_pool(t))] * 2
        ends += [lambda t: self.build.reduce_mean(t, keepdims=False)]
        ends += [lambda t: self.build.squeeze(self.build.reduce_mean(t, keepdims=True))]
        y = self.draw(st.sampled_from(ends))(x)
        for _ in range(self.draw(st.integers(0, 2))):
            y = self.vector_step(y)
        if y.shape[0] > 1 and self.draw(st.integers(0, 3)) == 0:
            y = self.build.node(self.draw(st.sampled_from(["Softmax", "LogSoftmax"])), [y], y.shape, axis=1)
        return y

    def vector_step(self, x: Tensor) -> Tensor:
        features, scale = self.draw(st.integers(2, 6)), self.scale()
        kinds = [
            lambda: self.build.gemm(x, features, trans_b=1, scale=scale),
            lambda: self.build.gemm(x, features, trans_b=0, bias=False, scale=scale),
            lambda: self.build.bias(self.build.matmul(x, features, scale=scale), first=self.chance()),
            lambda: self.build.relu(self.build.gemm(x, features)),
            lambda: self.build.relu(x),
            lambda: self.batch_norm(self.build.gemm(x, features)),
            lambda: self.batch_norm(x),
            lambda: self.build.add(x, x),
        ]
        return self.draw(st.sampled_from(kinds))()


@st.composite
def cases(draw: st.DrawFn, tame: bool | None = None) -> Case:
    """A random network of convolutions, additions and pools (or of vectors), with data."""
    seed = draw(st.integers(0, 2**31 - 1))
    tame = draw(st.booleans()) if tame is None else tame
    shape = tuple(draw(st.integers(*bounds)) for bounds in ((1, 4), (4, 9), (4, 9)))
    if draw(st.integers(0, 7)) == 0:
        shape = (draw(st.integers(2, 8)),)
    builder = ModelBuilder(
        shape, opset=draw(st.sampled_from([10, 13, 18])), seed=seed, batch=draw(st.sampled_from(["N", 1]))
    )
    grower = _Grower(draw, builder, tame)
    if len(shape) == 1:
        output = builder.node("Identity", [builder.input], shape)
        for _ in range(draw(st.integers(0, 4))):
            output = grower.vector_step(output)
    else:
        for _ in range(draw(st.integers(0, MAX_STEPS))):
            grower.step()
        output = grower.head()
    magnitude = 1.0 if tame else draw(st.sampled_from([1.0, 1.0, 1e-3, 1e3]))
    x = (np.random.default_rng(seed).normal(0, 1, (24, *shape)) * magnitude).astype(np.float32)
    return Case(builder.build(output), x, tame, seed)
