"""From the fake-quantised network to one that computes exactly what the chip computes.

`MAPPING` gives the network of the iteration `hardware_mapped`: DIANA's integer ranges, real scales, BatchNorm alive.
`FOLDING` and `exact_editors` give that of `hardware_exact`: BatchNorm folded, power-of-two scales, integer tensors.
"""

from dianaq_quant.editors.hardware.fold_batch_norm import FoldBatchNorm
from dianaq_quant.editors.hardware.fuse_requantisation import FuseRequantisation
from dianaq_quant.editors.hardware.integer_boundary import IntegerBoundary
from dianaq_quant.editors.hardware.map_scale import MapScale
from dianaq_quant.editors.hardware.plan import ScalePlan
from dianaq_quant.graph import Editor

MAPPING: list[Editor] = [MapScale()]
FOLDING: list[Editor] = [FoldBatchNorm()]


def exact_editors(plan: ScalePlan) -> list[Editor]:
    """The pipeline that turns a folded network into an exact one, with the scales of a plan."""
    return [FuseRequantisation(plan), IntegerBoundary(plan)]
