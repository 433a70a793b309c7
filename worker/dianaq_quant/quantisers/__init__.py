"""Observers, the initialisation of scales, and the autograd functions of quantisation.

From outside: everything in `__all__`; `register_quantiser` is for a user's own functions.
"""

from dianaq_quant.quantisers.functions import floor_clip, integers_of, round_clip
from dianaq_quant.quantisers.observer import Observer
from dianaq_quant.quantisers.registry import QuantiserFunction, quantiser_function, register_quantiser
from dianaq_quant.quantisers.scales import Seen, choose_offset, choose_scale, choose_scales

__all__ = [
    "Observer",
    "QuantiserFunction",
    "Seen",
    "choose_offset",
    "choose_scale",
    "choose_scales",
    "floor_clip",
    "integers_of",
    "quantiser_function",
    "register_quantiser",
    "round_clip",
]
