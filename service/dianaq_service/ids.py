"""Identifiers that sort by the time they were made, so that a listing's cursor is just an id."""

from __future__ import annotations

import secrets
import time


def new_id(prefix: str) -> str:
    """`prefix_` + 14 hex digits of microseconds since 1970 + 48 random bits."""
    return f"{prefix}_{time.time_ns() // 1000:014x}{secrets.token_hex(6)}"
