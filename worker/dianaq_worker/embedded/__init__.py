"""The whole service on one machine, without anything else installed.

`LocalStack` is the stack as a context manager (`stack`); `dianaq up` keeps one in the foreground (`command`).
"""

from dianaq_worker.embedded.stack import LocalStack, StackError

__all__ = ["LocalStack", "StackError"]
