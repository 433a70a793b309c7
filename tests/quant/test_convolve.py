"""Convolutions give the sums that they should, in every layout."""

from __future__ import annotations

import itertools

import pytest
import torch

from dianaq_quant.modules.structure import Geometry, convolve

SHAPES = [
    (channels, height, width, kernel, stride, pads)
    for channels, height, width, kernel, stride, pads in itertools.product(
        (1, 2), (3, 5), (3, 4, 7), ((1, 3), (2, 3), (3, 2)), ((1, 1), (1, 2), (2, 2), (1, 4)), ((0,) * 4, (0, 1, 0, 1))
    )
]


@pytest.mark.parametrize("dilation", [1, 2])
def test_convolutions_in_channels_last_layout(dilation: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tried = 0
    for channels, height, width, kernel, stride, pads in SHAPES:
        if dilation * (kernel[0] - 1) >= height or dilation * (kernel[1] - 1) >= width:
            continue
        # `to(channels_last)` leaves the strides of one channel as they are; those of a kernel's result are these.
        plain = torch.randn(8, channels, height, width, generator=generator)
        strides = (channels * height * width, 1, channels * width, channels)
        x = torch.empty_strided(plain.shape, strides).copy_(plain).requires_grad_()
        weight = torch.randn(6, channels, *kernel, generator=generator, requires_grad=True)
        geometry = Geometry(stride, pads, (dilation, dilation), 1)
        used = [torch.full((size,), 1e6) for size in (400, 800, 1600, 3000, 4000)]
        del used  # memory that is not zero waits for whoever reads what nobody wrote
        found = convolve(x, weight, None, geometry)
        double = (plain.double().requires_grad_(), weight.detach().double().requires_grad_())
        exact = convolve(*double, None, geometry)
        slopes = torch.randn(found.shape, generator=generator)
        gradients = torch.autograd.grad(found, (x, weight), slopes)
        expected = torch.autograd.grad(exact, double, slopes.double())
        for one, other in zip((found, *gradients), (exact, *expected), strict=True):
            assert torch.allclose(one.double(), other, atol=1e-3), (plain.shape, kernel, stride, pads)
        tried += 1
    assert tried > 100
