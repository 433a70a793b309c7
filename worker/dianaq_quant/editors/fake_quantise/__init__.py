"""From the canonical float network to a fake-quantised one.

Every linear layer gets a weight quantiser, and every tensor that the chip stores an activation quantiser.
"""

from dianaq.schemas.quantisers import Quantisers
from dianaq_quant.editors.fake_quantise.convert_activations import ConvertActivations
from dianaq_quant.editors.fake_quantise.convert_linear import ConvertLinear
from dianaq_quant.editors.fake_quantise.equalise import Equalise
from dianaq_quant.editors.fake_quantise.harmonise_adds import HarmoniseAdds
from dianaq_quant.editors.fake_quantise.interpose import Interpose
from dianaq_quant.editors.fake_quantise.take_pixels import TakePixels
from dianaq_quant.graph import Editor
from dianaq_quant.modules.pixels import PixelGrid


def editors(quantisers: Quantisers, *, equalise: bool, pixels: PixelGrid | None = None) -> list[Editor]:
    """The fake-quantisation pipeline for the quantisers of a recipe.

    Channels are not rescaled where the recipe gives an interval in their own units (`init: const`).

    Args:
        pixels: how pixels are normalised, if it is pixels that the exported network takes.
    """
    return [
        *([Equalise()] if equalise and not quantisers.constant else []),
        ConvertLinear(quantisers),
        ConvertActivations(quantisers),
        Interpose(quantisers),
        *([] if pixels is None else [TakePixels(pixels)]),
        HarmoniseAdds(),
    ]
