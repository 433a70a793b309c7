"""Observers, scale initialisation and the autograd functions of quantisation.

From outside: `Observer`, `choose_scale`, `fake_quantise`, `round_clip`, `floor_clip`.
"""

from dianaq_quant.quantisers.functions import fake_quantise, floor_clip, round_clip
from dianaq_quant.quantisers.observer import Observer
from dianaq_quant.quantisers.scales import choose_scale

__all__ = ["Observer", "choose_scale", "fake_quantise", "floor_clip", "round_clip"]
