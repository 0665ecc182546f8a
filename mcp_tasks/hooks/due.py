"""What is to be told of a task, and when: pure functions of what is armed, what was seen, and the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_tasks.hooks.armed import Armed, Notice, notice_id
from mcp_tasks.hooks.pace import LONGEST_MS
from mcp_tasks.models import Hook, HookEvent

__all__ = ["Seen", "earliest", "first_due", "is_over", "next_moment", "noticed"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A task as it is now, or as it was when it ended.

    Attributes:
        view: What is told of it.
        run: Number of its newest run.
        started_at: When that began, in ms since the epoch; None while nothing runs.
        elapsed_ms: Since then, whatever has become of the wall clock.
        output_at: When it printed last, in ms since the epoch; None where it never did.
    """

    view: Mapping[str, Any]
    final: bool
    run: int
    started_at: int | None = None
    elapsed_ms: int = 0
    output_at: int | None = None
    timeout_ms: int | None = None


def noticed(armed: Armed, seen: Seen | None, now: int) -> Armed:
    """What is armed, with a notice for each thing that has happened and that none is there for yet.

    While one of its kind is still to be told there is no other: nobody wants to hear of ten silences once a
    receiver is back, and what is kept has an end.
    """
    if seen is None:
        return armed
    for number, hook in enumerate(armed.hooks):
        for event in hook.on:
            moment = _moment(hook, event, seen, now)
            if moment is None or moment > now:
                continue
            mark = _mark(event, seen)
            newest = armed.newest(number, event)
            if newest is not None and (newest.mark == mark or newest.next_at is not None):
                continue
            told = notice_id(armed.key.task_id, number, event, mark)
            armed = armed.with_notice(Notice(told, number, event, mark, moment, seen.view, next_at=now))
    return armed


def first_due(armed: Armed, now: int) -> Notice | None:
    """The notice that is to be told now, the oldest first."""
    due = [one for one in armed.notices if _is_due(one, now)]
    return min(due, key=lambda one: (one.at, one.hook)) if due else None


def next_moment(armed: Armed, seen: Seen | None, now: int) -> int | None:
    """When something is to be told or may be to be noticed, as far as that can be foreseen."""
    moments = [one.next_at for one in armed.notices if one.next_at is not None]
    if seen is not None:
        for number, hook in enumerate(armed.hooks):
            for event in hook.on:
                moment = _moment(hook, event, seen, now)
                newest = armed.newest(number, event)
                if moment is None or (newest is not None and newest.next_at is not None):
                    continue
                if newest is None or newest.mark != _mark(event, seen):
                    moments.append(moment)
    return min(moments, default=None)


def earliest(armed: Armed, seen: Seen) -> int | None:
    """How soon after its start anything but its end may be told of a task, in ms; None for nothing."""
    spans = [hook.idle_ms for hook in armed.hooks if "idle" in hook.on]
    if seen.timeout_ms is not None:
        spans += [max(0, seen.timeout_ms - hook.before_ms) for hook in armed.hooks if "deadline" in hook.on]
    return min(spans, default=None)


def is_over(armed: Armed, seen: Seen | None, *, lost: bool) -> bool:
    """Whether nothing is left to be told, now or later. `lost`: there is no such task and never will be."""
    if any(one.next_at is not None for one in armed.notices):
        return False
    return lost if seen is None else seen.final


def _is_due(notice: Notice, now: int) -> bool:
    # One that is farther away than any pause was put off before the clock was set back.
    return notice.next_at is not None and not now < notice.next_at <= now + LONGEST_MS


def _moment(hook: Hook, event: HookEvent, seen: Seen, now: int) -> int | None:
    """When an event happens, as things are; None where it does not."""
    if event == "end":
        return now if seen.final else None
    if seen.final or seen.started_at is None:
        return None
    if event == "idle":
        # A clock that has jumped would have it quiet for longer than it runs.
        quiet = min(seen.elapsed_ms, max(0, now - _quiet_since(seen, seen.started_at)))
        return now + hook.idle_ms - quiet
    if seen.timeout_ms is None:
        return None
    return now + max(0, seen.timeout_ms - hook.before_ms) - seen.elapsed_ms


def _mark(event: HookEvent, seen: Seen) -> str:
    if event == "end":
        return "end"  # however often it ran, it ends once
    if event == "idle":
        return f"{seen.run}.{_quiet_since(seen, seen.started_at or 0)}"
    return str(seen.run)


def _quiet_since(seen: Seen, started_at: int) -> int:
    return max(started_at, seen.output_at or 0)
