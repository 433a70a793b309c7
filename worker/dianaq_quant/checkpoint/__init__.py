"""Checkpoints: a network after an iteration in a file that says all of itself, and loads without what made it.

From outside: everything in `__all__`; `register_module` is for a user's own classes of modules.
"""

from dianaq_quant.checkpoint.file import Checkpoint, Origin, load, save
from dianaq_quant.checkpoint.kinds import register_module

__all__ = ["Checkpoint", "Origin", "load", "register_module", "save"]
