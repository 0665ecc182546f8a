"""Spans of time as they are given on the command line."""

from __future__ import annotations

import math

from mcp_tasks.errors import InvalidArgument

__all__ = ["DAY_MS", "SECOND_MS", "milliseconds"]

SECOND_MS = 1_000
DAY_MS = 86_400_000


def milliseconds(span: float, unit_ms: int = SECOND_MS) -> int:
    """A span of so many units in ms. Raises InvalidArgument for what is no number (`nan`, `inf`)."""
    if not math.isfinite(span):
        raise InvalidArgument(f"{span} is no span of time", "give a number, like 1.5")
    return int(span * unit_ms)
