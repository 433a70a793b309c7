"""Where the compilers put a layer, from its geometry alone, and what the chip would make of it there.

`htvm_faults` holds the rules by which HTVM gives a layer to an accelerator, and the hazards of those it does give.
`soc_faults` holds the constraints of DORY's target Diana_SoC, which DORY does not check.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dianaq.schemas.quantisers import Core
from dianaq_quant.targets.diana.limits import (
    ANALOG_COLUMNS,
    ANALOG_ROWS,
    ANALOG_WEIGHT_BYTES,
    DIGITAL_WEIGHT_BYTES,
    INT8,
    INT16,
    L1_SOC_BYTES,
    L1_TVM_BYTES,
    L2_BYTES,
    MAX_SHIFT,
    RECTIFIED,
)
from dianaq_quant.targets.diana.rules import Fault, Rule

Kind = Literal["conv", "depthwise", "fc", "add", "pool"]

CLIPS = ((RECTIFIED.lo, RECTIFIED.hi), (INT8.lo, INT8.hi))
"""What the output stage of the chip clips to: with ReLU, and without."""


@dataclass(frozen=True)
class LayerGeometry:
    """What the rules look at. Sizes are (height, width), pads (top, left, bottom, right).

    A fully connected layer is a 1x1 kernel on a 1x1 map. An addition has the channels and the map of either operand.
    """

    kind: Kind
    core: Core
    c_in: int
    c_out: int
    in_size: tuple[int, int] = (1, 1)
    out_size: tuple[int, int] = (1, 1)
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    clip: tuple[int, int] | None = None
    """Bounds of the requantisation itself; a ReLU that follows as an operation of its own is not in them."""
    shift: int | None = None
    """Places of the requantisation's shift; None without one."""
    bias: bool = True
    """Whether the file gives the layer a bias, zeros included."""
    constants: tuple[int, int] | None = None
    """Smallest and largest of an analog layer's factors and offsets, k and l."""
    row_tiles: int = 1
    """Parts that an analog layer's kernel is cut into, because it has more rows than the array."""
    after_digital: bool = True
    """Whether it reads the output of a layer on the digital core."""

    @classmethod
    def of_add(
        cls, channels: int, size: tuple[int, int], *, clip: tuple[int, int] | None, shift: int | None
    ) -> LayerGeometry:
        """An addition of two maps of these channels and this size."""
        return cls("add", "digital", channels, channels, size, size, clip=clip, shift=shift, bias=False)

    @property
    def called(self) -> str:
        """Its kind, with `1d` behind it where it moves along a line: on maps of height 1, which are its input and
        output."""
        line = self.in_size[0] == self.out_size[0] == 1 < self.in_size[1]
        return f"{self.kind}1d" if line and self.kind in ("conv", "depthwise", "pool") else self.kind

    @property
    def rows(self) -> int:
        """Rows of the analog array: weights of one output channel."""
        return self.c_in * self.kernel[0] * self.kernel[1]

    @property
    def input_bytes(self) -> int:
        """int8 activations that it reads; an addition reads two maps."""
        return self.c_in * self.in_size[0] * self.in_size[1] * (2 if self.kind == "add" else 1)

    @property
    def output_bytes(self) -> int:
        """int8 activations that it writes."""
        return self.c_out * self.out_size[0] * self.out_size[1]

    @property
    def weight_bytes(self) -> int:
        """Its weights in int8 and its biases in int32, or the analog array's cells of two bits."""
        if self.kind in ("add", "pool"):
            return 0
        count = self.c_out * self.c_in // self.groups * self.kernel[0] * self.kernel[1]
        return -(-count // 4) if self.core == "analog" else count + 4 * self.c_out


HTVM_POOL = Rule("htvm.pool", "cpu", "pooling is never offloaded", of_network=True)
HTVM_KERNEL = Rule("htvm.kernel", "cpu", "kernel height and width each in {1,3,5,7}", of_network=True)
HTVM_STRIDE = Rule("htvm.stride", "cpu", "stride 1x1 or 2x2", of_network=True)
HTVM_DILATION = Rule("htvm.dilation", "cpu", "dilation 1", of_network=True)
HTVM_PADDING = Rule("htvm.padding", "cpu", "symmetric SAME padding", of_network=True)
HTVM_GROUPS = Rule("htvm.groups", "cpu", "group 1 or C_out; an analog layer has group 1", of_network=True)
HTVM_BIAS = Rule("htvm.bias", "cpu", "digital: a bias, 1-D, as the third input (zeros if none); analog: no bias")
HTVM_ELEMENTS = Rule(
    "htvm.elements",
    "cpu",
    "element counts of input and output divisible by 4; fully connected: in and out divisible by 4",
    of_network=True,
)
HTVM_ROWS = Rule(
    "htvm.rows", "cpu", "a conv whose C_in*kx*ky exceeds 1152 is not placed on the analog core", of_network=True
)
HTVM_SHIFT = Rule("htvm.shift", "rejected", "c = 2^k, 0 <= k <= 31")
HTVM_DEPTHWISE = Rule(
    "htvm.depthwise",
    "rejected",
    "depthwise: group = C_out, multiplier 1, C divisible by 4; otherwise DORY crashes or the CPU runs it",
    of_network=True,
)
HTVM_RELU_AFTER_ADD = Rule(
    "htvm.relu-after-add", "wrong", "hazard 1: ReLU after an add is lost (the add kernel has no activation)"
)
HTVM_CHANNELS = Rule(
    "htvm.channels",
    "wrong",
    "hazard 2: a conv (group 1) with C_out not a multiple of 16 gets corrupted bias bytes",
    of_network=True,
)
HTVM_NO_CODE = Rule(
    "htvm.no-code",
    "wrong",
    "hazard 3: DORY ends with exit code 0 and no code when a conv needs tiling (weights + bias > 64 kB, activations > "
    "256 kB, or C_out > 16 on a 1-wide map) and its map is smaller than its kernel",
    of_network=True,
)
HTVM_CLIP = Rule("htvm.clip", "wrong", "hazard 4: clip bounds other than [0,127] and [-128,127] after a digital layer")
HTVM_ONE_AXIS = Rule(
    "htvm.same-on-one-axis", "wrong", "hazard 5: SAME padding on one axis only is accepted and wrong", of_network=True
)
HTVM_L2 = Rule("htvm.l2", "wrong", "hazard 5: L2 (512 kB) is not checked", of_network=True)
HTVM_INT16 = Rule("htvm.int16", "wrong", "analog: k, l within int16 (they wrap silently)")

SOC_CHANNELS = Rule("soc.channels", "wrong", "C_in and C_out multiples of 16; analog: of 64", of_network=True)
SOC_WIDTH = Rule("soc.width", "wrong", "W (in and out) multiples of 16", of_network=True)
SOC_KERNEL = Rule("soc.kernel", "wrong", "square kernels", of_network=True)
SOC_PADDING = Rule("soc.padding", "wrong", "SAME padding", of_network=True)
SOC_STRIDE = Rule("soc.stride", "wrong", "stride 1 or 2", of_network=True)
SOC_DILATION = Rule("soc.dilation", "wrong", "no dilation", of_network=True)
SOC_ACTIVATIONS = Rule("soc.activations", "wrong", "in+out <= 128,000 B without tiling", of_network=True)
SOC_WEIGHTS = Rule(
    "soc.weights", "wrong", "weights+bias <= 65,536 B without tiling; analog: 147,456 B", of_network=True
)
SOC_RELU_AFTER_ADD = Rule("soc.relu-after-add", "wrong", "ReLU after Add is dropped by the HAL", of_network=True)
SOC_ROWS = Rule("soc.rows", "wrong", "analog: C_in*kh*kw <= 1152", of_network=True)
SOC_COLUMNS = Rule("soc.columns", "wrong", "analog: C_out <= 512", of_network=True)
SOC_GROUPS = Rule("soc.groups", "rejected", "group 1 or depthwise; analog: group 1", of_network=True)
SOC_ANALOG_BIAS = Rule("soc.analog-bias", "wrong", "analog: conv bias dropped")
SOC_POOL = Rule("soc.pool", "wrong", "pooling after a digital layer is wrong on Diana_SoC", of_network=True)


def htvm_faults(layer: LayerGeometry) -> list[Fault]:
    """What keeps HTVM from giving a layer to an accelerator (severity `cpu`) or from compiling it (`rejected`); if
    nothing does, what the chip would compute wrongly there (`wrong`)."""
    if layer.kind == "pool":
        return [Fault(HTVM_POOL, "the CPU pools")]
    faults = [*_htvm_obstacles(layer)] if layer.kind != "add" else []
    if layer.kind == "depthwise" and not faults:  # DORY sees only what is offloaded
        faults = [*_htvm_depthwise(layer)]
    if layer.shift is not None and not 0 <= layer.shift <= MAX_SHIFT:
        faults.append(Fault(HTVM_SHIFT, f"it shifts by {layer.shift} places, not 0 to {MAX_SHIFT}"))
    return faults or [*_htvm_hazards(layer)]


def htvm_offloads(layer: LayerGeometry) -> bool:
    """Whether HTVM gives the layer to an accelerator, be the result right or wrong there."""
    return all(fault.rule.severity == "wrong" for fault in htvm_faults(layer))


def htvm_network_faults(layers: Sequence[LayerGeometry]) -> list[Fault]:
    """What holds for all layers together: their weights and the largest activations share L2."""
    weights = sum(layer.weight_bytes for layer in layers)
    activations = max((layer.input_bytes + layer.output_bytes for layer in layers), default=0)
    if weights + activations <= L2_BYTES:
        return []
    return [
        Fault(HTVM_L2, f"{weights:,} B of weights and {activations:,} B of activations do not fit in {L2_BYTES:,} B")
    ]


def _htvm_obstacles(layer: LayerGeometry) -> Iterable[Fault]:
    """Rules of a conv, which are assumed for the analog core too [assume], and of a fully connected layer."""
    analog = layer.core == "analog"
    if layer.bias == analog:
        yield Fault(HTVM_BIAS, "an analog layer takes no bias" if analog else "it has no bias, or not a 1-D one")
    for which, count in (("input", layer.input_bytes), ("output", layer.output_bytes)):
        if count % 4:
            yield Fault(HTVM_ELEMENTS, f"its {which} has {count} elements, not a multiple of 4")
    if layer.kind == "fc":
        return
    kernel = _times(layer.kernel)
    if any(size not in (1, 3, 5, 7) for size in layer.kernel):
        yield Fault(HTVM_KERNEL, f"its kernel is {kernel}, not of 1, 3, 5 or 7")
    if layer.strides not in ((1, 1), (2, 2)):
        yield Fault(HTVM_STRIDE, f"its stride is {_times(layer.strides)}, not 1x1 or 2x2")
    if layer.dilation != (1, 1):
        yield Fault(HTVM_DILATION, f"its dilation is {_times(layer.dilation)}, not 1x1")
    if not _symmetric(layer) or not any(_same(layer)):
        yield Fault(HTVM_PADDING, f"its padding is {list(layer.pads)}: a kernel of {kernel} asks for {_wanted(layer)}")
    if layer.groups not in ((1,) if analog else (1, layer.c_out)):
        yield Fault(HTVM_GROUPS, f"it has {layer.groups} groups for {layer.c_out} output channels")
    if analog and (layer.rows > ANALOG_ROWS or layer.row_tiles > 1):
        yield Fault(HTVM_ROWS, f"it has {layer.rows} rows in {layer.row_tiles} tiles; the array has {ANALOG_ROWS}")


def _htvm_depthwise(layer: LayerGeometry) -> Iterable[Fault]:
    if layer.c_in != layer.c_out:
        yield Fault(HTVM_DEPTHWISE, f"depthwise with {layer.c_in} input and {layer.c_out} output channels")
    elif layer.c_out % 4:
        yield Fault(HTVM_DEPTHWISE, f"depthwise with {layer.c_out} channels, not a multiple of 4")


def _htvm_hazards(layer: LayerGeometry) -> Iterable[Fault]:
    """What HTVM accepts and the chip gets wrong."""
    if layer.core == "analog":
        if layer.constants and not INT16[0] <= layer.constants[0] <= layer.constants[1] <= INT16[1]:
            yield Fault(HTVM_INT16, f"k and l reach from {layer.constants[0]} to {layer.constants[1]}")
    elif layer.clip is not None and layer.clip not in CLIPS:
        yield Fault(HTVM_CLIP, f"it clips to {list(layer.clip)}, not to [0, 127] or [-128, 127]")
    if layer.kind == "add" and layer.clip is not None and layer.clip[0] >= 0:
        yield Fault(HTVM_RELU_AFTER_ADD, f"it clips to {list(layer.clip)}; the chip would clip to [-128, 127]")
    if layer.kind == "conv" and layer.core == "digital" and layer.c_out % 16:
        yield Fault(HTVM_CHANNELS, f"C_out = {layer.c_out} is not a multiple of 16")
    if layer.kind not in ("conv", "depthwise"):
        return
    if not all(_same(layer)):
        yield Fault(HTVM_ONE_AXIS, f"its padding is {list(layer.pads)}, SAME would be {_wanted(layer)}")
    tiling = (
        layer.weight_bytes > (ANALOG_WEIGHT_BYTES if layer.core == "analog" else DIGITAL_WEIGHT_BYTES)
        or layer.input_bytes + layer.output_bytes > L1_TVM_BYTES
        or (layer.c_out > 16 and layer.in_size[1] == 1)
    )
    if tiling and any(size < k for size, k in zip(layer.in_size, layer.kernel, strict=True)):
        yield Fault(
            HTVM_NO_CODE, f"a kernel of {_times(layer.kernel)} on a map of {_times(layer.in_size)} that needs tiling"
        )


def soc_faults(layer: LayerGeometry) -> list[Fault]:
    """What keeps DORY from compiling a layer (`rejected`), and constraints of Diana_SoC that DORY does not check: it
    compiles the layer all the same, and the result is wrong (`wrong`)."""
    return [*_soc_faults(layer)]


def _soc_faults(layer: LayerGeometry) -> Iterable[Fault]:
    analog = layer.core == "analog"
    if layer.kind == "pool":
        if layer.after_digital:
            yield Fault(SOC_POOL, "it pools what a digital layer computed")
        return
    multiple = 64 if analog else 16
    if layer.c_in % multiple or layer.c_out % multiple:
        message = f"C_in = {layer.c_in} and C_out = {layer.c_out} are not both multiples of {multiple}"
        yield Fault(SOC_CHANNELS, message)
    if layer.input_bytes + layer.output_bytes > L1_SOC_BYTES:
        total = layer.input_bytes + layer.output_bytes
        yield Fault(SOC_ACTIVATIONS, f"{total:,} B of input and output do not fit in {L1_SOC_BYTES:,} B")
    limit = ANALOG_WEIGHT_BYTES if analog else DIGITAL_WEIGHT_BYTES
    if layer.weight_bytes > limit:
        yield Fault(SOC_WEIGHTS, f"{layer.weight_bytes:,} B of weights do not fit in {limit:,} B")
    if layer.kind == "add" and layer.clip is not None and layer.clip[0] >= 0:
        yield Fault(SOC_RELU_AFTER_ADD, f"it clips to {list(layer.clip)}; the chip would clip to [-128, 127]")
    if layer.kind == "fc":
        return
    widths = layer.in_size[1], layer.out_size[1]
    if any(width % 16 for width in widths):
        yield Fault(SOC_WIDTH, f"its input is {widths[0]} and its output {widths[1]} wide, not both multiples of 16")
    if layer.kind != "add":
        yield from _soc_conv_faults(layer, analog)


def _soc_conv_faults(layer: LayerGeometry, analog: bool) -> Iterable[Fault]:
    if layer.kernel[0] != layer.kernel[1]:
        yield Fault(SOC_KERNEL, f"its kernel is {_times(layer.kernel)}")
    if not (_symmetric(layer) and all(_same(layer))):
        yield Fault(SOC_PADDING, f"its padding is {list(layer.pads)}, SAME would be {_wanted(layer)}")
    if layer.strides not in ((1, 1), (2, 2)):
        yield Fault(SOC_STRIDE, f"its stride is {_times(layer.strides)}")
    if layer.dilation != (1, 1):
        yield Fault(SOC_DILATION, f"its dilation is {_times(layer.dilation)}")
    depthwise = layer.groups == layer.c_in == layer.c_out
    if layer.groups != 1 and (analog or not depthwise):
        yield Fault(SOC_GROUPS, f"it has {layer.groups} groups for {layer.c_in} to {layer.c_out} channels")
    if not analog:
        return
    if layer.rows > ANALOG_ROWS:
        yield Fault(SOC_ROWS, f"it has {layer.rows} rows; the array has {ANALOG_ROWS}")
    if layer.c_out > ANALOG_COLUMNS:
        yield Fault(SOC_COLUMNS, f"it has {layer.c_out} columns; the array has {ANALOG_COLUMNS}")
    if layer.bias:
        yield Fault(SOC_ANALOG_BIAS, "it has a bias")


def _same(layer: LayerGeometry) -> tuple[bool, bool]:
    """Whether the padding keeps the size at stride 1, vertically and horizontally."""
    top, left, bottom, right = layer.pads
    height, width = _reach(layer)
    return top + bottom == height, left + right == width


def _symmetric(layer: LayerGeometry) -> bool:
    return layer.pads[:2] == layer.pads[2:]


def _wanted(layer: LayerGeometry) -> list[int]:
    """The pads that would be SAME and symmetric, as far as an odd kernel allows."""
    return [size // 2 for size in _reach(layer)] * 2


def _reach(layer: LayerGeometry) -> tuple[int, int]:
    """Rows and columns that the kernel reads beside the first."""
    (height, width), (down, right) = layer.kernel, layer.dilation
    return down * (height - 1), right * (width - 1)


def _times(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"
