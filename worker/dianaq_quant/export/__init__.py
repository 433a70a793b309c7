"""The integer network as files: one ONNX dialect per compiler, with golden vectors.

From outside: `export_htvm`, `export_dory`, `write_golden`.
"""

from dianaq_quant.export.dory import export_dory
from dianaq_quant.export.golden import write_golden
from dianaq_quant.export.htvm import export_htvm

__all__ = ["export_dory", "export_htvm", "write_golden"]
