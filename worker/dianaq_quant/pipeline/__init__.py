"""One job from end to end: the stages, what they hand on, and how a job starts from the checkpoint of another.

From outside: `run`, and `STAGES` (their order). The rest of the library does not import this room.
"""

from dianaq_quant.pipeline.pipeline import run
from dianaq_quant.pipeline.stages import STAGES

__all__ = ["STAGES", "run"]
