"""Who answers whom: trees of messages, found by their ids and those of their parents."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["branch_of", "thread_of"]


def branch_of(parents: Mapping[str, str | None], message_id: str) -> set[str]:
    """The message and all that it answers, directly or not.

    Args:
        parents: For each message that answers one, the id of that one.
        message_id: Where the branch ends.
    """
    branch: set[str] = set()
    at: str | None = message_id
    while at is not None and at not in branch:  # an import may have made a ring
        branch.add(at)
        at = parents.get(at)
    return branch


def thread_of(parents: Mapping[str, str | None], message_id: str) -> set[str]:
    """Everything that hangs together with the message by answers. See `branch_of`."""
    answers: dict[str, list[str]] = {}
    for message, parent in parents.items():
        if parent is not None:
            answers.setdefault(parent, []).append(message)
    thread = branch_of(parents, message_id)
    open_ends = list(thread)
    while open_ends:
        new = [one for one in answers.get(open_ends.pop(), ()) if one not in thread]
        thread.update(new)
        open_ends += new
    return thread
