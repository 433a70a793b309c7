"""From the canonical float network to a fake-quantised one.

Every linear layer gets a weight quantiser, and every tensor that the chip stores an activation quantiser.
"""

from dianaq.ranges import QRange
from dianaq_quant.editors.fake_quantise.convert_activations import ConvertActivations
from dianaq_quant.editors.fake_quantise.convert_linear import ConvertLinear
from dianaq_quant.editors.fake_quantise.equalise import Equalise
from dianaq_quant.editors.fake_quantise.harmonise_adds import HarmoniseAdds
from dianaq_quant.editors.fake_quantise.interpose import Interpose
from dianaq_quant.graph import Editor


def editors(weights: QRange, activations: QRange, *, equalise: bool) -> list[Editor]:
    """The fake-quantisation pipeline for the given integer ranges."""
    return [
        *([Equalise()] if equalise else []),
        ConvertLinear(weights),
        ConvertActivations(activations),
        Interpose(activations),
        HarmoniseAdds(),
    ]
