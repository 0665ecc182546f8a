"""How many tasks a session has in each state, and which are in one, without reading the final records."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from mcp_tasks.models import TASK_ID, SessionKey, StateName, Task
from mcp_tasks.stores.finals import Finals
from mcp_tasks.stores.session_folders import SessionFolders
from mcp_tasks.stores.task_records import TaskRecords

__all__ = ["TaskIndex"]

_BATCH = 500


class TaskIndex:
    """The names of the records, and the states that are written down of the final ones."""

    def __init__(self, sessions: SessionFolders, records: TaskRecords) -> None:
        """Nothing is read yet."""
        self._sessions = sessions
        self._records = records
        self._finals = Finals(sessions)

    def add(self, task: Task) -> None:
        """Write down that a task is final, once its record is on the disk. Any other is ignored."""
        self._finals.add(task.key.session_key, [task])

    def counts(self, session: SessionKey) -> Mapping[StateName, int]:
        """See `Store.counts`."""
        ids = self._sessions.task_ids(session)
        known = self._finals.states(session)
        counted = Counter(known[task_id] for task_id in ids if task_id in known)
        counted.update(task.state_name for task in self._read(session, [i for i in ids if i not in known]))
        self._finals.compact(session, ids)
        return counted

    def states(self, session: SessionKey, task_ids: Sequence[str]) -> Mapping[str, StateName]:
        """See `Store.states`."""
        known = self._finals.states(session)
        try:
            folder = self._sessions.existing(session, "tasks")
        except FileNotFoundError:
            return {}
        there = [i for i in task_ids if TASK_ID.fullmatch(i) and os.path.lexists(f"{folder}/{i}.json")]
        found = {task_id: known[task_id] for task_id in there if task_id in known}
        unknown = [task_id for task_id in there if task_id not in known]
        found.update((task.key.task_id, task.state_name) for task in self._read(session, unknown))
        return {task_id: found[task_id] for task_id in there if task_id in found}

    def unfinished(self, session: SessionKey) -> Iterator[Task]:
        """The tasks of a session that are not final, as recorded, in no order."""
        known = self._finals.states(session)
        unknown = [task_id for task_id in self._sessions.task_ids(session) if task_id not in known]
        return (task for task in self._read(session, unknown) if not task.is_final)

    def written(self, session: SessionKey) -> Mapping[str, StateName]:
        """The final states that are written down, of tasks that may be gone."""
        return self._finals.states(session)

    def forget(self, session: SessionKey) -> None:
        """Give back what was read of a session."""
        self._finals.forget(session)

    def clear(self) -> None:
        """Give back everything."""
        self._finals.clear()

    def _read(self, session: SessionKey, task_ids: Iterable[str]) -> Iterator[Task]:
        """Read tasks, and write down the final ones among them, so that they need not be read again."""
        tasks = self._records.each(session, task_ids)
        while batch := list(islice(tasks, _BATCH)):
            self._finals.add(session, batch)
            yield from batch
