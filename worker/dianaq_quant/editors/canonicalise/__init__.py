"""From an imported network to the canonical form that the later stages rely on.

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
from dianaq_quant.graph import Editor

EDITORS: list[Editor] = [
    AbsorbBias(),
    BatchNormToConv(),
    AveragePoolToConv(),
    AnchorActivation(),
    AnchorCeiling(),
    AnchorInput(),
]
"""The canonicalisation pipeline."""
