"""Networks that were exported while they were training: what they compute depends on the batch, or on chance."""

from __future__ import annotations

from dianaq.inspection.network import Network


def check_evaluation(network: Network) -> None:
    """Refuse nodes that train.

    In training a BatchNormalization normalises by its batch. It says so by an attribute since opset 14, and before by
    the statistics that it gives besides (whose shapes nobody can tell, so that this is looked at first). A Dropout says
    so by its third input since opset 12.

    Raises:
        UnsupportedOperator: names the node, and tells to export the model after `model.eval()`.
    """
    for node in network.nodes:
        trains = False
        if node.operator == "BatchNormalization":
            trains = bool(node.attributes.get("training_mode", 0) or any(node.outputs[1:]))
        elif node.operator == "Dropout" and node.input(2):
            flag = network.constant(node.input(2))
            trains = flag is None or bool(flag.any())
        if trains:
            raise node.refused("is exported in training mode; export the model after model.eval()")
