"""When a cleanup is due, and how old things count as, whatever somebody does to the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mcp_tasks.retention.history import CleanupRecord

__all__ = ["DAY_MS", "Moments", "went_back", "when_due"]

DAY_MS = 86_400_000
_SLACK_MS = 3_600_000
_USUAL_GAP_MS = 2 * DAY_MS


@dataclass(frozen=True, slots=True)
class Moments:
    """From when ages are counted, ms since the epoch.

    Attributes:
        idle: For what can be undone. After an unusual gap (the machine was off, or its clock jumped) the
            moment of the last cleanup, so that the first one after a jump does nothing by it.
        removal: For what cannot be undone: always the moment of the last cleanup, so that things must be
            too old twice. None where there was none.
    """

    idle: int
    removal: int | None


def when_due(
    now: int,
    record: CleanupRecord | None,
    hour: int,
    local: Callable[[int], datetime],
) -> Moments | None:
    """From when ages count in a cleanup that is due; None where none is due.

    Args:
        now: Milliseconds since the epoch.
        record: Of the cleanups before.
        hour: Local hour of the day from which on the cleanup of that day is due.
        local: The local time of a moment.
    """
    if record is None:
        return Moments(idle=now, removal=None)
    today = local(now).replace(hour=hour, minute=0, second=0, microsecond=0)
    newest = int(today.timestamp() * 1000)
    if newest > now:
        newest = int((today - timedelta(days=1)).timestamp() * 1000)
    if record.last_at >= newest:
        return None
    usual = now - record.last_at <= _USUAL_GAP_MS
    return Moments(idle=now if usual else record.last_at, removal=record.last_at)


def went_back(now: int, record: CleanupRecord | None) -> bool:
    """Whether the last cleanup lies in the future, by more than clocks are usually off."""
    return record is not None and record.last_at > now + _SLACK_MS
