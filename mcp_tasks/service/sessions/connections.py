"""Who is attached to a session, who was, and how it ended."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace

from mcp_tasks.clock import Clock
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import Connection, SessionKey
from mcp_tasks.ports import Journal, Presence, Store
from mcp_tasks.service.sessions.records import SessionRecords

__all__ = ["Attendance", "Client", "Connections"]

log = logging.getLogger(__name__)

_SEEN_AGAIN_MS = 60_000
_MOST_SESSIONS = 100
_LONGEST_NAME = 200
_LOOKED_AT = 1_000


@dataclass(frozen=True, slots=True)
class Client:
    """What a client says of itself."""

    name: str
    version: str


class Connections:
    """Connections as they are kept in the journal. Blocking but for `attend`.

    The id of a connection begins with that of its server. When that server has died, whatever ended it,
    the connection is lost, and whoever looks next writes that down.
    """

    def __init__(
        self, store: Store, journal: Journal, presence: Presence, records: SessionRecords, clock: Clock
    ) -> None:
        self._store = store
        self._journal = journal
        self._presence = presence
        self._records = records
        self._clock = clock
        self._count = 0
        self._guard = threading.Lock()

    def attend(self, transport: str) -> Attendance:
        """One client has come, over `stdio` or another transport; nothing is written yet."""
        with self._guard:
            self._count += 1
            number = self._count
        return Attendance(
            transport,
            number,
            journal=self._journal,
            presence=self._presence,
            records=self._records,
            clock=self._clock,
        )

    def of(self, key: SessionKey, limit: int) -> list[Connection]:
        """The newest connections of a session, newest first, as they are now."""
        found = self._journal.connections(key.owner, key.session, limit=limit)
        return [self._as_it_is(connection) for connection in found]

    def mark_lost(self) -> None:
        """Write down the end of connections whose servers have died. Raises StoreUnavailable."""
        gone = self._presence.gone()
        if not gone:
            return
        for owner in {session.key.owner for session in self._store.sessions()}:
            for connection in self._journal.connections(owner, limit=_LOOKED_AT):
                self._as_it_is(connection)
        for server_id in gone:
            self._presence.forget(server_id)

    def _as_it_is(self, connection: Connection) -> Connection:
        server_id, _, _ = connection.connection_id.partition("-")
        if connection.ended is not None or self._presence.is_here(server_id):
            return connection
        lost = replace(connection, ended="lost", ended_at=self._clock.now_ms())
        try:
            self._journal.connect(lost)
        except StoreUnavailable as error:
            log.warning("the end of a connection could not be written down: %s", error)
        return lost


class Attendance:
    """One client at one server: a connection for each session that it works in.

    A session is written down when the client was served in it for the first time, beside the answer.
    """

    def __init__(
        self,
        transport: str,
        number: int,
        *,
        journal: Journal,
        presence: Presence,
        records: SessionRecords,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._presence = presence
        self._records = records
        self._clock = clock
        self._transport = transport
        self._number = number
        self._open: dict[SessionKey, Connection] = {}
        self._guard = threading.Lock()

    def saw(self, key: SessionKey, client: Client) -> None:
        """The client was served in a session. Never raises, and waits for nothing."""
        now = self._clock.now_ms()
        known = self._open.get(key)
        if known is None and len(self._open) >= _MOST_SESSIONS:
            return
        if known is not None and now - known.seen_at < _SEEN_AGAIN_MS:
            return
        try:
            if known is None and self._records.find(key) is None:
                return
        except StoreUnavailable:
            return
        if known is None:
            connection = Connection(
                connection_id=f"{len(self._open)}",
                owner=key.owner,
                session=key.session,
                client=client.name[:_LONGEST_NAME],
                version=client.version[:_LONGEST_NAME],
                transport=self._transport,
                began_at=now,
                seen_at=now,
            )
        else:
            connection = replace(known, seen_at=now)
        self._open[key] = connection
        self._records.soon(self._write, key, connection)

    def close(self) -> None:
        """The client has gone in good order. Blocking; never raises."""
        now = self._clock.now_ms()
        for key, connection in self._open.items():
            self._write(key, replace(connection, seen_at=now, ended_at=now, ended="closed"))
        self._open.clear()

    def _write(self, key: SessionKey, connection: Connection) -> None:
        try:
            with self._guard:
                server_id = self._presence.begin()
                named = f"{server_id}-{self._number}-{connection.connection_id}"
                self._journal.connect(replace(connection, connection_id=named))
        except StoreUnavailable as error:
            log.warning("a connection to session %s could not be written down: %s", key.session, error)
