"""From an imported network to the canonical form that the later stages rely on.

`TRACED` makes the calls of a traced network modules, which is what an ONNX file gives; `Substitute` and `DropSigmoid`
bring away the activations that no core computes; `EDITORS` does the rest.

In canonical form: a BatchNorm follows a linear layer that nothing else reads; a ReLU follows a linear layer, its
BatchNorm or an addition that nothing else reads; no ReLU6 is next to an addition; average pools are global,
non-negative and flattened; what the input feeds is linear.
"""

from dianaq_quant.editors.canonicalise.absorb_bias import AbsorbBias
from dianaq_quant.editors.canonicalise.anchor_activation import AnchorActivation
from dianaq_quant.editors.canonicalise.anchor_ceiling import AnchorCeiling
from dianaq_quant.editors.canonicalise.anchor_input import AnchorInput
from dianaq_quant.editors.canonicalise.average_pool_to_conv import AveragePoolToConv
from dianaq_quant.editors.canonicalise.batch_norm_to_conv import BatchNormToConv
from dianaq_quant.editors.canonicalise.drop_activation import DropActivation
from dianaq_quant.editors.canonicalise.drop_sigmoid import DropSigmoid, final_sigmoid
from dianaq_quant.editors.canonicalise.drop_softmax import DropSoftmax
from dianaq_quant.editors.canonicalise.fold_constants import FoldConstants
from dianaq_quant.editors.canonicalise.fold_shapes import FoldShapes
from dianaq_quant.editors.canonicalise.fuse_activations import FuseActivations
from dianaq_quant.editors.canonicalise.in_place import InPlace
from dianaq_quant.editors.canonicalise.merge_branches import MergeBranches
from dianaq_quant.editors.canonicalise.modulise_activations import ModuliseActivations
from dianaq_quant.editors.canonicalise.modulise_additions import ModuliseAdditions
from dianaq_quant.editors.canonicalise.modulise_arithmetic import ModuliseArithmetic
from dianaq_quant.editors.canonicalise.modulise_batch_norms import ModuliseBatchNorms
from dianaq_quant.editors.canonicalise.modulise_layers import ModuliseLayers
from dianaq_quant.editors.canonicalise.modulise_maxima import ModuliseMaxima
from dianaq_quant.editors.canonicalise.modulise_means import ModuliseMeans
from dianaq_quant.editors.canonicalise.modulise_one_dimension import ModuliseOneDimension
from dianaq_quant.editors.canonicalise.modulise_pads import ModulisePads
from dianaq_quant.editors.canonicalise.modulise_permutations import ModulisePermutations
from dianaq_quant.editors.canonicalise.modulise_pools import ModulisePools
from dianaq_quant.editors.canonicalise.modulise_reshapes import ModuliseReshapes
from dianaq_quant.editors.canonicalise.modulise_slices import ModuliseSlices
from dianaq_quant.editors.canonicalise.recognise_activations import RecogniseActivations
from dianaq_quant.editors.canonicalise.remove_dead_code import RemoveDeadCode
from dianaq_quant.editors.canonicalise.remove_identities import RemoveIdentities
from dianaq_quant.editors.canonicalise.separate_calls import SeparateCalls
from dianaq_quant.editors.canonicalise.substitute import Substitute, activations, with_originals
from dianaq_quant.graph import Editor

__all__ = [
    "EDITORS",
    "TRACED",
    "DropSigmoid",
    "Substitute",
    "activations",
    "final_sigmoid",
    "with_originals",
]

TRACED: list[Editor] = [
    InPlace(),
    RemoveDeadCode(),
    FoldShapes(),
    FoldConstants(),
    SeparateCalls(),
    RemoveIdentities(),
    RecogniseActivations(),
    ModuliseActivations(),
    ModuliseArithmetic(),
    ModuliseAdditions(),
    ModulisePads(),
    ModuliseSlices(),
    ModuliseMaxima(),
    ModuliseMeans(),
    ModuliseReshapes(),
    ModulisePermutations(),
    ModulisePools(),
    ModuliseLayers(),
    ModuliseOneDimension(),
    ModuliseBatchNorms(),
    DropSoftmax(),
]
"""What a traced network needs before, in this order: writes in place must go before anything can move."""

EDITORS: list[Editor] = [
    AbsorbBias(),
    BatchNormToConv(),
    AveragePoolToConv(),
    DropActivation(),
    FuseActivations(),
    MergeBranches(),
    AnchorActivation(),
    AnchorCeiling(),
    AnchorInput(),
]
"""The canonicalisation pipeline."""
