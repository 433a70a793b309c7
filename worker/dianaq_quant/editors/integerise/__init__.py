"""From the exact network, whose parameters are real, to one that holds integers only."""

from dianaq_quant.editors.integerise.integerise import Integerise
from dianaq_quant.graph import Editor

EDITORS: list[Editor] = [Integerise()]
"""The integerisation pipeline."""
