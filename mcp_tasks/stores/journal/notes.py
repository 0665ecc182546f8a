"""Entries that nobody waits for: gathered, and written together by a thread of their own.

The policy where more is noted than can be written: the queue is bounded, an entry that finds it full is
left out and counted, and whoever notes never waits. What cannot be written now stays in the queue and
is tried again each second; what still cannot be written at the end is given up, and the log says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from mcp_tasks.errors import TasksError
from mcp_tasks.models import Draft, SessionKey
from mcp_tasks.ports.journals import Entry

__all__ = ["Notes", "Write"]

_MOST_WAITING = 10_000
_BATCH = 1_000
_GATHER_S = 0.05
_AGAIN_S = 1.0
_FLUSH_S = 5.0
_CLOSE_S = 1.5
"""How long they wait for the writer, at most: a server ends soon, whatever the disk does."""

log = logging.getLogger(__name__)


class Write(Protocol):
    """Writes entries and when sessions were used, all or, where it raises TasksError, nothing."""

    def __call__(self, drafts: Sequence[Draft], used: Mapping[SessionKey, int]) -> None:
        """Do it."""
        ...


class Notes:
    """The queue and its thread, which begins with the first entry."""

    def __init__(self, write: Write, *, most_waiting: int = _MOST_WAITING) -> None:
        self._write = write
        self._most_waiting = most_waiting
        self._queue: deque[Entry] = deque()
        self._ready: list[Draft] = []
        self._used: dict[SessionKey, int] = {}
        self._writing: dict[SessionKey, int] = {}
        self._state = threading.Condition()
        self._thread: threading.Thread | None = None
        self._urgent = False
        self._closed = False
        self._rounds = 0
        self._working = False
        self._left_out = 0
        self._failure: str | None = None

    def add(self, entry: Entry) -> None:
        """Take an entry, or leave it out where too many wait."""
        with self._state:
            if self._closed or len(self._queue) + len(self._ready) >= self._most_waiting:
                self._left_out += 1
                return
            self._queue.append(entry)
            self._begin()

    def used(self, session: SessionKey, at: int) -> None:
        """Take note that a session was used."""
        with self._state:
            if not self._closed:
                self._used[session] = max(at, self._used.get(session, 0))
                self._begin()

    def used_at(self) -> dict[SessionKey, int]:
        """What of it is not known to be written yet."""
        with self._state:
            return self._writing | self._used

    def flush(self) -> None:
        """Wait until what was noted before this call was written, or could not be."""
        with self._state:
            if not self._anything() and not self._working:
                return
            # The round that is under way may have begun before the newest entry.
            target = self._rounds + (2 if self._working else 1)
            self._urgent = True
            self._state.notify_all()
            self._state.wait_for(
                lambda: self._rounds >= target or not (self._anything() or self._working), _FLUSH_S
            )

    def close(self) -> None:
        """Write what there is, and end the thread."""
        with self._state:
            self._closed = True
            thread = self._thread
            self._state.notify_all()
        if thread is not None:
            thread.join(_CLOSE_S)
        with self._state:
            lost = len(self._queue) + len(self._ready)
        if lost:
            log.warning("%d entries of journals could not be written: %s", lost, self._failure)

    def problems(self) -> list[str]:
        """What was left out, and what cannot be written now."""
        with self._state:
            told = []
            if self._left_out:
                told.append(f"{self._left_out} entries of journals were left out, more than can be written")
            if self._failure:
                told.append(f"entries of journals cannot be written: {self._failure}")
            return told

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()
        elif len(self._queue) in (1, _BATCH) or len(self._used) == 1:
            self._state.notify_all()

    def _anything(self) -> bool:
        return bool(self._queue or self._ready or self._used)

    def _run(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._anything() or self._closed)
                if not self._anything():
                    return
                if not self._failure:
                    self._state.wait_for(self._is_due, _GATHER_S)
                else:
                    self._state.wait_for(lambda: self._urgent or self._closed, _AGAIN_S)
                taken = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH))]
                used, self._used = self._used, {}
                self._writing = used
                self._urgent = self._urgent and bool(self._queue)
                self._working = True
            failure = self._round(taken, used)
            with self._state:
                self._working = False
                self._writing = {}
                self._failure = failure
                if failure:
                    self._urgent = False
                    for session, at in used.items():
                        self._used[session] = max(at, self._used.get(session, 0))
                if failure or not self._queue:
                    self._rounds += 1
                self._state.notify_all()
                if self._closed and (failure or not self._anything()):
                    return

    def _is_due(self) -> bool:
        return self._urgent or self._closed or len(self._queue) >= _BATCH

    def _round(self, taken: Sequence[Entry], used: dict[SessionKey, int]) -> str | None:
        """Write what was taken and what is left of rounds before. Returns why that failed."""
        for entry in taken:
            try:
                draft = entry() if callable(entry) else entry
            except Exception:
                log.exception("an entry of a journal could not be made")
            else:
                if draft is not None:
                    self._ready.append(draft)
        began = time.monotonic()
        try:
            # What makes an entry may find that its session was used.
            with self._state:
                used |= self._used
                self._used = {}
            self._write(self._ready, used)
        except TasksError as error:
            if self._failure is None:
                log.warning("entries of journals cannot be written: %s", error.message)
            return error.message
        except Exception:
            log.exception("entries of journals could not be written, %d are lost", len(self._ready))
        self._ready = []
        log.debug("journals written in %.1f ms", (time.monotonic() - began) * 1000)
        return None
