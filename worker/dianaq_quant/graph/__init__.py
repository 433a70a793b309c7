"""Editors and the surgery they do on a `torch.fx` graph.

From outside: `Editor`, `Edit`, `Point`, `Rejection`, `Repeated`, `run_editors`, and the helpers of `surgery`.
"""

from dianaq_quant.graph.editor import Edit, Editor, Point, Rejection, Repeated, run_editors

__all__ = ["Edit", "Editor", "Point", "Rejection", "Repeated", "run_editors"]
