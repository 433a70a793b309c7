"""From the fake-quantised network to one that computes exactly what the chip computes.

`assignment` says which core runs which layer (before anything is quantised). `mapping` gives the network of the
iteration `hardware_mapped`: the cores' integer ranges and the converters of analog layers, BatchNorm alive. `FOLDING`
and `exact_editors` give that of `hardware_exact`: BatchNorm folded, power-of-two scales, integer tensors.
"""

from collections.abc import Mapping

from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.ranges import QRange
from dianaq_quant.editors.hardware.assign_cores import AssignCores
from dianaq_quant.editors.hardware.fold_batch_norm import FoldBatchNorm
from dianaq_quant.editors.hardware.fuse_requantisation import FuseRequantisation
from dianaq_quant.editors.hardware.integer_boundary import IntegerBoundary
from dianaq_quant.editors.hardware.map_analog import MapAnalog
from dianaq_quant.editors.hardware.map_scale import MapScale
from dianaq_quant.editors.hardware.map_weights import MapWeights
from dianaq_quant.editors.hardware.plan import ScalePlan
from dianaq_quant.graph import Editor


def assignment(cores: CoreMapping) -> list[Editor]:
    """The editor that assigns cores."""
    return [AssignCores(cores)]


def mapping(analog_weights: QRange, input_steps: Mapping[QRange, float] | None = None) -> list[Editor]:
    """The pipeline that brings ranges to those of the cores, and convolutions to the analog one."""
    return [MapScale(input_steps), MapWeights(), MapAnalog(analog_weights)]


FOLDING: list[Editor] = [FoldBatchNorm()]


def exact_editors(plan: ScalePlan, batch_norm_bits: int = 8) -> list[Editor]:
    """The pipeline that turns a folded network into an exact one, with the scales of a plan."""
    return [FuseRequantisation(plan, batch_norm_bits), IntegerBoundary(plan)]
