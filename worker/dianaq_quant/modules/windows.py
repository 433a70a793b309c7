"""The windows of a pool, and forms of them that compute the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dianaq_quant.modules.structure import Pads


@dataclass(frozen=True)
class Window:
    """Kernel, stride and padding of a pool."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: Pads

    def covers(self, size: tuple[int, int]) -> bool:
        """Whether there is one window, which is the whole map."""
        return self.kernel == size and not any(self.pads)


def rounded_up(window: Window, size: tuple[int, int]) -> Window:
    """The window that ceil_mode means, with more padding at the end where a last window is cut off.

    A window is added only if it begins within the map or the padding before it (torch.nn.MaxPool2d; ONNX, MaxPool
    since version 22, and the runtimes for all versions).
    """
    ends = []
    for i, whole in enumerate(size):
        kernel, stride, before, after = window.kernel[i], window.stride[i], window.pads[i], window.pads[i + 2]
        span = whole + before + after - kernel
        more = span % stride != 0 and (span // stride + 1) * stride < whole + before
        ends.append((span // stride + 1) * stride + kernel - whole - before if more else after)
    return replace(window, pads=(*window.pads[:2], ends[0], ends[1]))


def unpadded(window: Window, size: tuple[int, int]) -> Window | None:
    """The window without its padding, where none meets it; else None."""
    for i, whole in enumerate(size):
        kernel, stride, before, after = window.kernel[i], window.stride[i], window.pads[i], window.pads[i + 2]
        last = (whole + before + after - kernel) // stride * stride
        if before or last + kernel > whole:
            return None
    return replace(window, pads=(0, 0, 0, 0))
