"""Random float networks and datasets, as hypothesis strategies; and what a job may say of cores and quantisers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st

from .builder import ModelBuilder, Tensor

MAX_STEPS = 7

WIDE = 130
"""Channels of which a 3 x 3 kernel takes 1170 rows: two tiles of the analog array."""


@dataclass(frozen=True)
class Case:
    """A model, samples of its input, whether its weights have usual magnitudes, and the job's settings."""

    model: onnx.ModelProto
    x: np.ndarray
    tame: bool
    seed: int
    spec: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        nodes = "\n".join(
            f"  {n.name} = {n.op_type}({', '.join(n.input)}) -> {n.output[0]}" for n in self.model.graph.node
        )
        return f"Case(seed={self.seed}, tame={self.tame}, input={self.x.shape[1:]}, spec={self.spec}\n{nodes})"


class _Grower:
    """Adds random operators to a model; `live` are the maps that later operators may read."""

    def __init__(self, draw: st.DrawFn, builder: ModelBuilder, tame: bool, mixed: bool) -> None:
        self.draw, self.build, self.tame = draw, builder, tame
        self.more = [self.wide, self.residual, self.residual] if mixed else []
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

    def residual(self, x: Tensor) -> Tensor:
        """Two layers of kernel 3 and an addition of what they read, as ResNets have them."""
        pads = (1, 1, 1, 1)
        inner = self.build.relu(self.batch_norm(self.build.conv(x, self.draw(st.integers(1, 6)), pads=pads)))
        y = self.batch_norm(self.build.conv(inner, x.shape[0], pads=pads, bias=False))
        total = self.build.add(*self.draw(st.permutations([x, y])))
        return self.build.relu(total) if self.chance() else total

    def wide(self, x: Tensor) -> Tensor:
        """A layer whose rows need several arrays."""
        wide = self.build.relu(self.build.conv(x, WIDE, (1, 1)))
        return self.batch_norm(self.build.conv(wide, 3, (3, 3), pads=(1, 1, 1, 1), bias=False))

    def step(self) -> None:
        x = self.pick()
        kinds = [self.layer] * 6 + [self.add] * 4 + [self.max_pool, self.average_pool, self.batch_norm]
        kinds += [self.build.relu, self.build.relu6, self.pass_on, self.mean, self.residual, *self.more]
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


def quantiser_specs(activations: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Quantisers of weights or of activations, as a job writes them: any range, start and function that combine."""
    signed = st.sampled_from([True, True, False, None]) if activations else st.just(True)
    bits = st.integers(2, 8)
    sizes = st.one_of(
        st.fixed_dictionaries({"bitwidth": bits}),
        st.fixed_dictionaries({"limpbitwidth": bits}),
        st.fixed_dictionaries({"n_levels": st.integers(3, 256)}),
    )
    ranges = st.builds(lambda size, sign: size if sign is None else {**size, "signed": sign}, sizes, signed)
    starts = st.one_of(
        st.sampled_from(["minmax", "meanstd", "mse", "percentile"]),
        st.fixed_dictionaries({"strategy": st.just("meanstd"), "n_std": st.floats(1, 5)}),
        st.fixed_dictionaries({"strategy": st.just("const"), "a": st.floats(-4, 0), "b": st.floats(0.25, 4)}),
    )
    functions = st.sampled_from(["ste", "tqt", "pact"] if activations else ["ste", "tqt"])
    usual = st.fixed_dictionaries({"range": ranges, "init": starts, "function": functions})
    if activations:
        return usual
    granularities = st.sampled_from(["per-array", "per-outchannel_weights", [0, 1]])
    named = st.sampled_from([{"range": word, "function": word} for word in ("ternary", "binary")])
    return st.builds(
        lambda spec, slices: {**spec, "granularity": slices}, st.one_of(usual, usual, named), granularities
    )


def _has_what_it_rules(rule: dict[str, Any]) -> bool:
    """Sums, activations and the input have no weights."""
    return "weights" not in rule or rule.get("type") not in ("add", "activation", "input")


def quantiser_settings(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """A recipe's quantisers, with up to two rules for the layers of these names."""
    weights, activations = quantiser_specs(False), quantiser_specs(True)
    kinds = ["conv", "depthwise", "linear", "add", "activation", "input", "output"]
    conditions = st.fixed_dictionaries(
        {},
        optional={
            "layers": st.sampled_from(["*", *names]),
            "type": st.sampled_from(kinds),
            "core": st.sampled_from(["digital", "analog"]),
        },
    )
    given = st.one_of(
        st.fixed_dictionaries({"weights": weights}, optional={"activations": activations}),
        st.fixed_dictionaries({"activations": activations}),
    )
    rules = st.lists(st.builds(lambda a, b: {**a, **b}, conditions, given).filter(_has_what_it_rules), max_size=2)
    return st.fixed_dictionaries({}, optional={"weights": weights, "activations": activations, "rules": rules})


def mappings(convolutions: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """What a job may say of cores, about convolutions of these names; some of it is impossible."""
    cores = st.sampled_from(["digital", "analog"])
    named = st.dictionaries(st.sampled_from([*convolutions, "conv*"]), cores, max_size=2)
    return st.fixed_dictionaries(
        {
            "default": st.sampled_from(["analog", "analog", "auto", "digital"]),
            "ends": cores,
            "layers": named if convolutions else st.just({}),
        }
    )


@st.composite
def settings_of(draw: st.DrawFn, model: onnx.ModelProto) -> dict[str, Any]:
    """Random mapping, interface, target and quantisers of a job for a model."""
    names = [node.name for node in model.graph.node]
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    recipe = {"quantisers": draw(quantiser_settings(names))} if draw(st.booleans()) else {}
    return {
        "mapping": draw(mappings(convolutions)),
        "interface": {end: draw(st.sampled_from(["float", "int8"])) for end in ("input", "output")},
        "target": {"batch_norm_bits": draw(st.sampled_from([8, 16]))},
        "recipe": recipe,
    }


@st.composite
def cases(draw: st.DrawFn, tame: bool | None = None, mixed: bool = False) -> Case:
    """A random network of convolutions, additions and pools (or of vectors), with data.

    Args:
        mixed: for both cores and with quantisers of any kind; otherwise all is digital and by default.
    """
    seed = draw(st.integers(0, 2**31 - 1))
    tame = draw(st.booleans()) if tame is None else tame
    shape = tuple(draw(st.integers(*bounds)) for bounds in ((1, 4), (4, 9), (4, 9)))
    if not mixed and draw(st.integers(0, 7)) == 0:
        shape = (draw(st.integers(2, 8)),)
    builder = ModelBuilder(
        shape, opset=draw(st.sampled_from([10, 13, 18])), seed=seed, batch=draw(st.sampled_from(["N", 1]))
    )
    grower = _Grower(draw, builder, tame, mixed)
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
    model = builder.build(output)
    return Case(model, x, tame, seed, draw(settings_of(model)) if mixed else {})
