"""The rewrites, one per file, in the order of the stages that use them.

From outside: each folder's `EDITORS` list (a pipeline that a reader sees on one screen) or builder function.
"""
