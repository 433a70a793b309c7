"""From the raw modules that both ways in give to the canonical ones that the later stages know.

Raw modules (`Rearrange` of `modules.layout`) say what a file or a call says. `EDITORS` brings a network of another
layout into (N, C, H, W), where the function stays the same; what stays raw is refused.
"""

from dianaq_quant.editors.lower.flatten_first import FlattenFirst
from dianaq_quant.editors.lower.lay_input import LayInput
from dianaq_quant.editors.lower.lay_output import LayOutput
from dianaq_quant.editors.lower.merge_rearrangements import MergeRearrangements
from dianaq_quant.editors.lower.pool_before_rearranging import PoolBeforeRearranging
from dianaq_quant.editors.lower.reorder_features import ReorderFeatures
from dianaq_quant.editors.lower.sink_rearrangements import SinkRearrangements
from dianaq_quant.editors.lower.sink_reorders import SinkReorders
from dianaq_quant.editors.lower.turn_windows import TurnWindows
from dianaq_quant.graph import Editor, Repeated

LAYOUTS: list[Editor | Repeated] = [
    MergeRearrangements(),
    LayInput(),
    Repeated((MergeRearrangements(), SinkRearrangements(), TurnWindows(), PoolBeforeRearranging())),
    FlattenFirst(),
    Repeated((SinkReorders(), ReorderFeatures())),
    LayOutput(),
]
"""Every rearrangement wanders to the end of the network, until it meets its inverse or a fully connected layer."""

EDITORS: list[Editor | Repeated] = [*LAYOUTS]
"""The pipeline, in this order: what the other editors look for is in the layout (N, C, H, W)."""
