"""From the raw modules that both ways in give to the canonical ones that the later stages know.

Raw modules (`Rearrange` of `modules.layout`; `Affine`, `Pad2d`, `Slice2d`, ... of `modules.structure`) say what a file
or a call says. `EDITORS` brings a network of another layout into (N, C, H, W), lets neighbours take in what they can
where the function stays the same, and makes layers of the rest; what stays raw is refused.
"""

from dianaq_quant.editors.lower.affine_into_layer_after import AffineIntoLayerAfter
from dianaq_quant.editors.lower.affine_into_layer_before import AffineIntoLayerBefore
from dianaq_quant.editors.lower.affine_to_layer import AffineToLayer
from dianaq_quant.editors.lower.bounds_to_activation import BoundsToActivation
from dianaq_quant.editors.lower.drop_neutral import DropNeutral
from dianaq_quant.editors.lower.flatten_first import FlattenFirst
from dianaq_quant.editors.lower.lay_input import LayInput
from dianaq_quant.editors.lower.lay_output import LayOutput
from dianaq_quant.editors.lower.merge_affines import MergeAffines
from dianaq_quant.editors.lower.merge_pads import MergePads
from dianaq_quant.editors.lower.merge_rearrangements import MergeRearrangements
from dianaq_quant.editors.lower.merge_slices import MergeSlices
from dianaq_quant.editors.lower.pad_into_readers import PadIntoReaders
from dianaq_quant.editors.lower.pad_to_layer import PadToLayer
from dianaq_quant.editors.lower.pool_before_rearranging import PoolBeforeRearranging
from dianaq_quant.editors.lower.rearrange_before_padding import RearrangeBeforePadding
from dianaq_quant.editors.lower.reorder_features import ReorderFeatures
from dianaq_quant.editors.lower.sink_rearrangements import SinkRearrangements
from dianaq_quant.editors.lower.sink_reorders import SinkReorders
from dianaq_quant.editors.lower.slice_to_layer import SliceToLayer
from dianaq_quant.editors.lower.split_scaled_add import SplitScaledAdd
from dianaq_quant.editors.lower.turn_windows import TurnWindows
from dianaq_quant.graph import Editor, Repeated

LAYOUTS: list[Editor | Repeated] = [
    Repeated((MergeRearrangements(), RearrangeBeforePadding())),
    LayInput(),
    Repeated(
        (
            MergeRearrangements(),
            RearrangeBeforePadding(),
            SinkRearrangements(),
            TurnWindows(),
            PoolBeforeRearranging(),
        )
    ),
    FlattenFirst(),
    Repeated((SinkReorders(), ReorderFeatures())),
    LayOutput(),
]
"""Every rearrangement wanders to the end of the network, until it meets its inverse or a fully connected layer."""

EDITORS: list[Editor | Repeated] = [
    *LAYOUTS,
    SplitScaledAdd(),
    DropNeutral(),
    Repeated((BoundsToActivation(),)),
    Repeated((MergePads(), MergeSlices(), MergeAffines())),
    DropNeutral(),
    Repeated((AffineIntoLayerBefore(),)),
    Repeated((AffineIntoLayerAfter(),)),
    Repeated((PadIntoReaders(),)),
    SliceToLayer(),
    AffineToLayer(),
    PadToLayer(),
]
"""The pipeline, in this order: what the editors after the first look for is in the layout (N, C, H, W). What neighbours
take in costs nothing, so that layers are made of the rest only; merging may leave what is neutral."""
