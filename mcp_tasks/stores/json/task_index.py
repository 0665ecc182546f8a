"""How many tasks a session has in each state, and which are in one, without reading the final records."""

from __future__ import annotations

import heapq
import os
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import FINAL_STATES, TASK_ID, SessionKey, StateName, Task, TaskKey
from mcp_tasks.stores.json.finals import Finals
from mcp_tasks.stores.json.record_cache import unsettled_ns
from mcp_tasks.stores.json.session_folders import SessionFolders
from mcp_tasks.stores.json.state_marks import Standing
from mcp_tasks.stores.json.task_files import TaskFiles

__all__ = ["TaskIndex"]

_BATCH = 500
_PAGE = 200
_MOST_LISTED = 250_000
_LARGE = 2**18
_SHORT = 50_000_000
_UNFINISHED: Mapping[Standing | None, StateName] = {
    "pending": "pending",
    "held": "pending",
    "running": "running",
}


@dataclass(slots=True)
class _Listing:
    """The ids of the tasks of a session, for as long as its folder has not changed.

    Attributes:
        is_kept: It is looked at again, so that what was found out about it is worth keeping; the ids
            are sorted, the oldest first.
        unknown: Those whose state was not written down; some of them may be by now.
        counts: How many are in each state, where all are final.
    """

    changed_ns: int
    ids: list[str]
    is_kept: bool = False
    unknown: list[str] | None = None
    counts: Mapping[StateName, int] | None = None


class TaskIndex:
    """The names of the records, and the states that are written down of the final ones."""

    def __init__(
        self, sessions: SessionFolders, records: TaskFiles, glance: Callable[[TaskKey], Standing | None]
    ) -> None:
        """Nothing is read yet.

        Args:
            sessions: Where the records are.
            records: Reads them.
            glance: Tells where a task stands, as cheaply as can be.
        """
        self._sessions = sessions
        self._records = records
        self._glance = glance
        self._finals = Finals(sessions)
        self._guard = threading.Lock()
        self._listings: dict[SessionKey, _Listing] = {}
        self._listed = 0

    def add(self, task: Task) -> None:
        """Write down that a task is final, once its record is on the disk. Any other is ignored."""
        self._finals.add(task.key.session_key, [task])

    def withdraw(self, key: TaskKey) -> None:
        """Note that a final task is about to be in another state. Raises StoreUnavailable."""
        self._finals.withdraw(key.session_key, key.task_id)

    def counts(self, session: SessionKey) -> Mapping[StateName, int]:
        """See `Store.counts`."""
        listing = self._listing(session)
        if not listing.ids:
            return {}
        if listing.counts is not None:
            return dict(listing.counts)
        known, tally = self._finals.tally(session)
        unknown = _unknown(listing, known)
        counted = Counter(tally)
        if len(known) + len(unknown) > len(listing.ids):
            counted.subtract(known[task_id] for task_id in set(known).difference(listing.ids))
        self._finals.compact(session, listing.ids)
        counted.update(self._recorded(session, unknown).values())
        counts = {state: number for state, number in counted.items() if number}
        if counts.keys() <= FINAL_STATES and sum(counts.values()) == len(listing.ids):
            listing.counts = counts
        return dict(counts)

    def states(self, session: SessionKey, task_ids: Sequence[str]) -> Mapping[str, StateName]:
        """See `Store.states`."""
        try:
            folder = self._sessions.existing(session, "tasks")
        except FileNotFoundError:
            return {}
        known = self._finals.states(session)
        there = [i for i in task_ids if TASK_ID.fullmatch(i) and os.path.lexists(f"{folder}/{i}.json")]
        found = {task_id: known[task_id] for task_id in there if task_id in known}
        unknown = [task_id for task_id in there if task_id not in known]
        found.update(self._recorded(session, unknown))
        return {task_id: found[task_id] for task_id in there if task_id in found}

    def newest_first(
        self, session: SessionKey, before: str | None, states: Collection[StateName] | None
    ) -> Iterator[Task]:
        """See `Store.tasks`."""
        listing = self._listing(session)
        if states is None:
            return self._records.each(session, _descending(listing.ids, before, in_order=listing.is_kept))
        known, tally = self._finals.tally(session)
        if any(tally.get(state) for state in states):
            ids = _descending(listing.ids, before, in_order=listing.is_kept)
        else:
            ids = _descending(_unknown(listing, known), before, in_order=False)
        wanted = self._wanted(session, ids, known, frozenset(states))
        return (task for task in self._records.each(session, wanted) if task.state_name in states)

    def unfinished(self, session: SessionKey) -> Iterator[Task]:
        """The tasks of a session that are not final, as recorded, in no order."""
        unknown = _unknown(self._listing(session), self._finals.states(session))
        return (task for task in self._read(session, unknown) if not task.is_final)

    def written(self, session: SessionKey) -> Mapping[str, StateName]:
        """The final states that are written down, of tasks that may be gone."""
        return self._finals.states(session)

    def forget(self, session: SessionKey) -> None:
        """Give back what was read of a session."""
        self._finals.forget(session)
        self._drop(session)

    def clear(self) -> None:
        """Give back everything."""
        self._finals.clear()
        with self._guard:
            self._listings.clear()
            self._listed = 0

    def _listing(self, session: SessionKey) -> _Listing:
        """The ids that have a record now, from memory where the folder has not changed since."""
        try:
            folder = self._sessions.existing(session, "tasks")
            found = os.lstat(folder)
            kept = self._kept_listing(session, found.st_mtime_ns)
            if kept is not None:
                return kept
            if (
                found.st_size > _LARGE
                and 0 < (rest := unsettled_ns(found.st_mtime_ns, time.time_ns())) < _SHORT
            ):
                # To list a large folder takes longer than to wait until the list is good for the next call.
                time.sleep(rest / 1e9)
                found = os.lstat(folder)
        except (OSError, StoreUnavailable):
            return _Listing(0, self._sessions.task_ids(session))  # which says what is wrong
        changed_ns, began_ns = found.st_mtime_ns, time.time_ns()
        listing = _Listing(changed_ns, self._sessions.task_ids(session))
        self._drop(session)
        if unsettled_ns(changed_ns, began_ns) <= 0:
            listing.is_kept = True
            listing.ids.sort()
            with self._guard:
                self._listings[session] = listing
                self._listed += len(listing.ids)
            while self._listed > _MOST_LISTED and len(self._listings) > 1:
                self._drop(next(iter(self._listings)))
        return listing

    def _kept_listing(self, session: SessionKey, changed_ns: int) -> _Listing | None:
        with self._guard:
            kept = self._listings.get(session)
            if kept is None or kept.changed_ns != changed_ns:
                return None
            self._listings[session] = self._listings.pop(session)  # the newest comes last
            return kept

    def _drop(self, session: SessionKey) -> None:
        with self._guard:
            dropped = self._listings.pop(session, None)
            self._listed -= 0 if dropped is None else len(dropped.ids)

    def _wanted(
        self,
        session: SessionKey,
        ids: Iterable[str],
        known: Mapping[str, StateName],
        states: frozenset[StateName],
    ) -> Iterator[str]:
        for task_id in ids:
            state = known.get(task_id)
            if state is None:
                stands = self._glance(TaskKey(session.owner, session.session, task_id))
                if stands is None:
                    continue
                state = _UNFINISHED.get(stands)  # None for one that is over, which has to be read
            if state is None or state in states:
                yield task_id

    def _recorded(self, session: SessionKey, task_ids: Iterable[str]) -> dict[str, StateName]:
        """The states of tasks that are not written down, or not yet."""
        found: dict[str, StateName] = {}
        ended: list[str] = []
        for task_id in task_ids:
            stands = self._glance(TaskKey(session.owner, session.session, task_id))
            if stands == "over":
                ended.append(task_id)
            elif stands is not None:
                found[task_id] = _UNFINISHED[stands]
        found.update((task.key.task_id, task.state_name) for task in self._read(session, ended))
        return found

    def _read(self, session: SessionKey, task_ids: Iterable[str]) -> Iterator[Task]:
        """Read tasks, and write down the final ones among them, so that they need not be read again."""
        tasks = self._records.each(session, task_ids)
        while batch := list(islice(tasks, _BATCH)):
            self._finals.add(session, batch)
            yield from batch


def _unknown(listing: _Listing, known: Mapping[str, StateName]) -> list[str]:
    """The tasks whose states are not written down."""
    among = listing.ids if listing.unknown is None else listing.unknown
    listing.unknown = list(set(among).difference(known))
    return listing.unknown


def _descending(ids: list[str], before: str | None, *, in_order: bool) -> Iterator[str]:
    """Newest first; the first page of very many without sorting them all."""
    if in_order:
        end = len(ids) if before is None else bisect_left(ids, before)
        yield from (ids[at] for at in range(end - 1, -1, -1))
        return
    if before is not None:
        ids = [task_id for task_id in ids if task_id < before]
    if len(ids) > 5 * _PAGE:
        page = heapq.nlargest(_PAGE, ids)
        yield from page
        ids = [task_id for task_id in ids if task_id < page[-1]]
    yield from sorted(ids, reverse=True)
