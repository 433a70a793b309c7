"""What a job says of the files for the compilers."""

from __future__ import annotations

from dianaq.schemas.strict import StrictModel


class Remedies(StrictModel):
    """Rewrites of the exported networks, each without effect on a number that they compute, for what the compilers
    refuse, leave to the CPU, or accept and get wrong. The report lists what each did, per compiler."""

    pad_channels: bool = True
    """Channels padded with zeros: those of maps to multiples of 16 (for HTVM but the input's), fully connected layers'
    inputs and outputs to multiples of 4 for HTVM, of 16 for DORY. A padded output of the network holds the least
    integer."""
    relu_after_add: bool = True
    """The add kernels have no activation: a ReLU after an addition is written as an operation of its own."""
    centre_tap: bool = True
    """Kernels on a map of 1 x 1 reduced to the one tap that does not meet padding."""
    same_padding: bool = True
    """Kernels that are even, dilated, or padded differently on two sides written as odd, dense ones, padded alike."""
