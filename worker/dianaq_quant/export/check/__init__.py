"""Whether a file keeps the contract of a compiler: read from disk, knowing nothing of what wrote it.

Every rule has an id, a severity and what it says (`Rule`), beside the code that looks for it: `htvm*.py` hold the
HTVM dialect's, `dory*.py` the DORY dialect's, `golden*.py` those of the files beside a model, and
`dianaq_quant.targets.diana.placement` those that follow from a layer's geometry alone.
From outside: `check_file`, `check_htvm`, `check_dory`, and `Checked`, `CheckedLayer`, `Finding`. No torch.
"""

from dianaq_quant.export.check.dialect import check_dory, check_file, check_htvm, dialect_of
from dianaq_quant.export.check.findings import Checked, CheckedLayer, Finding

__all__ = ["Checked", "CheckedLayer", "Finding", "check_dory", "check_file", "check_htvm", "dialect_of"]
