"""What one compiler or the other needs of an integer network, without changing a number that it computes.

`editors` composes the pipeline for a dialect. Each remedy can be switched off (`dianaq.schemas.deployment.Remedies`).
"""

from typing import Literal

from dianaq.schemas.deployment import Remedies
from dianaq_quant.editors.deploy.centre_tap import CentreTap
from dianaq_quant.editors.deploy.pad_channels import HTVM_MULTIPLES, SOC_MULTIPLES, PadChannels
from dianaq_quant.editors.deploy.same_padding import SamePadding
from dianaq_quant.editors.deploy.split_add_relu import SplitAddRelu
from dianaq_quant.graph import Editor

Dialect = Literal["htvm", "dory"]


def editors(dialect: Dialect, remedies: Remedies) -> list[Editor]:
    """The remedies that are switched on, in an order in which none undoes another."""
    found: list[Editor] = []
    if remedies.relu_after_add:
        found.append(SplitAddRelu(by_identity=dialect == "dory"))
    if remedies.centre_tap:
        found.append(CentreTap())
    if remedies.same_padding:
        found.append(SamePadding(square=dialect == "dory"))
    if remedies.pad_channels:
        found.append(PadChannels(SOC_MULTIPLES if dialect == "dory" else HTVM_MULTIPLES))
    return found


__all__ = ["Dialect", "editors"]
