"""The record of a session: `session.json` in its folder, made with the folder."""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import ExitStack, suppress

from mcp_tasks.codec import BrokenRecord, NewerSchema, decode_session, decode_task, encode_session
from mcp_tasks.errors import InvalidArgument, RevisionConflict, SessionNotFound, StoreUnavailable
from mcp_tasks.models import Session, SessionKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.locks import FolderGone
from mcp_tasks.stores.disk.state_folder import StateFolder
from mcp_tasks.stores.json.record_cache import Signature, signature, unsettled_ns
from mcp_tasks.stores.json.session_folders import SessionFolders

__all__ = ["SessionFiles"]

_MOST_CACHED = 4096


class SessionFiles:
    """Reads and writes them. Safe for many threads and many processes."""

    def __init__(self, state: StateFolder, sessions: SessionFolders) -> None:
        """Nothing is read yet."""
        self._state = state
        self._sessions = sessions
        self._ready: set[SessionKey] = set()
        self._cache: dict[SessionKey, tuple[Signature, Session]] = {}

    def ready(self, key: SessionKey, created_at: int) -> str:
        """Make sure that a session exists durably, and return its folder.

        Args:
            key: The session.
            created_at: Used where the session is new. Milliseconds since the epoch.

        Raises:
            InvalidArgument: The name cannot be a session's.
            StoreUnavailable: It could not be made, or a newer version wrote it.
        """
        if key in self._ready:
            try:
                return os.path.dirname(self._sessions.existing(key, "tasks"))
            except FileNotFoundError:
                self._ready.discard(key)
        self.open(Session(key, created_at))
        return self._sessions.path(key)

    def open(self, session: Session) -> Session:
        """See `Store.open_session`."""
        key = session.key
        data = encode_session(session)
        try:
            path = self._sessions.path(key)
        except ValueError:
            raise InvalidArgument(
                f"{key.session!r} cannot be the name of a session", "1 to 128 of A-Z a-z 0-9 . _ -"
            ) from None
        with self._sessions.making():
            for folder in (
                os.path.dirname(path),
                path,
                *(f"{path}/{part}" for part in ("tasks", "runs", "keys")),
            ):
                durable.make_private_folder(folder, self._state.report)
            durable.remove_stale_temporaries(path)
            durable.remove_stale_temporaries(f"{path}/keys")
            with self._sessions.lock(key):
                stored = self._there(key)
                if stored is None:
                    # Somebody may have made the folders without a sync; the record comes last, so
                    # that whoever sees it need not sync them again.
                    durable.fsync_folder(os.path.dirname(os.path.dirname(path)))
                    durable.fsync_folder(os.path.dirname(path))
                    durable.create_exclusively(f"{path}/session.json", data)
                    stored = session
        self._ready.add(key)
        return stored

    def load(self, key: SessionKey) -> Session:
        """See `Store.load_session`. Raises NewerSchema for a newer version's record."""
        try:
            path = f"{self._sessions.existing(key)}/session.json"
        except FileNotFoundError:
            raise SessionNotFound(key.session) from None
        except durable.UnsafeFile as error:
            self._state.report(f"session {key.session}: {error.message}")
            raise SessionNotFound(key.session) from None
        try:
            cached = self._cache.get(key)
            if cached is not None and cached[0] == signature(os.lstat(path)):
                return cached[1]
            return self._read(key, path)
        except NewerSchema as error:
            self._state.report(f"session {key.session}: {error.message}")
            raise
        except (FileNotFoundError, BrokenRecord, durable.UnsafeFile):
            pass
        except OSError as error:
            raise durable.unavailable("reading a session", error) from error
        with self._locked(key):
            stored = self._there(key)
        if stored is None:
            raise SessionNotFound(key.session)
        return stored

    def replace(self, session: Session) -> Session:
        """See `Store.replace_session`."""
        key = session.key
        new = dataclasses.replace(session, revision=session.revision + 1)
        data = encode_session(new)
        with self._locked(key):
            stored = self._there(key)
            if stored is None:
                raise SessionNotFound(key.session)
            if stored.revision != session.revision:
                raise RevisionConflict(
                    f"session {key.session} was changed meanwhile: "
                    f"revision {stored.revision}, not {session.revision}",
                    "read it again",
                )
            path = f"{self._sessions.path(key)}/session.json"
            durable.write_durably(path, data, previous=encode_session(stored))
            self._cache.pop(key, None)
        return new

    def all(self, owner: str | None = None) -> list[Session]:
        """All sessions, or those of one owner, by name. Raises StoreUnavailable."""
        found: list[Session] = []
        for key in self._sessions.names(owner):
            with suppress(SessionNotFound, NewerSchema):  # reported, where it is one
                found.append(self.load(key))
        return sorted(found, key=lambda session: session.key)

    def forget(self, key: SessionKey) -> None:
        """Note that a session is gone."""
        self._ready.discard(key)
        self._cache.pop(key, None)

    def _locked(self, key: SessionKey) -> ExitStack:
        """The lock of a session that exists. Raises SessionNotFound."""
        with ExitStack() as held:
            try:
                self._sessions.existing(key)
                held.enter_context(self._sessions.lock(key))
            except (FileNotFoundError, FolderGone, durable.UnsafeFile):
                raise SessionNotFound(key.session) from None
            return held.pop_all()

    def _read(self, key: SessionKey, path: str) -> Session:
        began_ns = time.time_ns()
        data, found = durable.read_with_stat(path, report=self._state.report)
        session = decode_session(data)
        if session.key != key:
            raise BrokenRecord("session.key: it names another session than its folder")
        if unsettled_ns(found.st_mtime_ns, began_ns) <= 0:
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            self._cache[key] = (signature(found), session)
        return session

    def _there(self, key: SessionKey) -> Session | None:
        """The session as recorded; None where there is none. The caller holds its lock.

        A record that is broken is set aside, and one is made of what is left of the session.
        """
        path = self._sessions.path(key)
        try:
            return self._read(key, f"{path}/session.json")
        except FileNotFoundError:
            if not self._sessions.task_ids(key):
                return None
            self._state.report(f"session {key.session}: session.json was lost and is made again")
        except NewerSchema as error:
            self._state.report(f"session {key.session}: {error.message}")
            raise
        except (BrokenRecord, durable.UnsafeFile) as error:
            self._state.set_aside(f"{path}/session.json", error.message)
        left = Session(key, self._age(key))
        try:
            durable.create_exclusively(f"{path}/session.json", encode_session(left))
        except StoreUnavailable as error:
            self._state.report(f"session {key.session}: session.json cannot be written: {error.message}")
        return left

    def _age(self, key: SessionKey) -> int:
        """When a session was made, as far as its oldest task or its folder tells."""
        path = self._sessions.path(key)
        with suppress(BrokenRecord, StoreUnavailable, FileNotFoundError, ValueError):
            oldest = min(self._sessions.task_ids(key))
            return decode_task(durable.read_private(f"{path}/tasks/{oldest}.json")).created_at
        try:
            return int(os.lstat(path).st_mtime * 1000)
        except OSError:
            return int(time.time() * 1000)
