"""The sessions of the SQLite store."""

from __future__ import annotations

import dataclasses

from mcp_tasks.codec import NewerSchema, encode_session
from mcp_tasks.errors import InvalidArgument, RevisionConflict, SessionNotFound
from mcp_tasks.models import SESSION_NAME, Session, SessionKey
from mcp_tasks.stores.database.connections import Connection
from mcp_tasks.stores.sqlite.rows import SESSIONS, RecordRows

__all__ = ["SessionRows", "compare", "refuse_name"]


class SessionRows:
    """Writes and lists them."""

    def __init__(self, rows: RecordRows) -> None:
        """Nothing is read yet."""
        self._rows = rows
        self.known: set[SessionKey] = set()
        """Those that are there, and can be read, or were a moment ago."""

    def all(self, owner: str | None = None) -> list[Session]:
        """See `Store.sessions`."""
        rows = self._rows.select(
            "SELECT owner, session FROM sessions WHERE owner = ?1 OR ?1 IS NULL ORDER BY owner, session",
            owner,
        )
        found: list[Session] = []
        for row in rows:
            try:
                found.append(self._rows.read(SESSIONS, SessionKey(*row)))
            except (SessionNotFound, NewerSchema):
                continue  # gone meanwhile, or reported
        return found

    def open(self, session: Session) -> Session:
        """See `Store.open_session`."""
        refuse_name(session.key.session)
        stored = self._rows.change(lambda connection: self.register(connection, session))
        self.known.add(session.key)
        return stored or self._rows.read(SESSIONS, session.key)

    def replace(self, session: Session) -> Session:
        """See `Store.replace_session`."""
        new = dataclasses.replace(session, revision=session.revision + 1)
        data = encode_session(new)

        def write(connection: Connection) -> None:
            stored = self._rows.stored(connection, SESSIONS, session.key)
            if stored is None:
                raise SessionNotFound(session.key.session)
            compare(f"session {session.key.session!r}", stored.revision, session.revision)
            connection.execute(
                "UPDATE sessions SET revision = ?, data = ? WHERE owner = ? AND session = ?",
                (new.revision, data, *SESSIONS.address(session.key)),
            )

        self._rows.change(write)
        return new

    def register(self, connection: Connection, session: Session) -> Session | None:
        """Make a session where there is none. Returns it as stored, None where it was not looked at."""
        address = SESSIONS.address(session.key)
        done = connection.execute(
            "INSERT INTO sessions (owner, session, revision, created_at, data) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (owner, session) DO NOTHING",
            (*address, session.revision, session.created_at, encode_session(session)),
        )
        if done.rowcount:
            return session
        # Whether it can be read, and is no newer version's, is looked at once.
        return self._rows.stored(connection, SESSIONS, session.key) if session.key not in self.known else None

    def adopt(self, at: int) -> None:
        """Give a session to tasks whose own was lost with a part of the database.

        Args:
            at: When it is made, in milliseconds since the epoch.
        """
        missing = self._rows.select(
            "SELECT DISTINCT owner, session FROM counts WHERE number > 0"
            " EXCEPT SELECT owner, session FROM sessions"
        )
        for row in missing:
            self.open(Session(SessionKey(*row), at))


def refuse_name(session: str) -> None:
    """Raise InvalidArgument for what cannot be the name of a session."""
    if not SESSION_NAME.fullmatch(session):
        raise InvalidArgument(f"{session!r} cannot be the name of a session", "1 to 128 of A-Z a-z 0-9 . _ -")


def compare(what: str, stored: int, given: int) -> None:
    """Raise RevisionConflict where a revision is not the stored one."""
    if stored != given:
        raise RevisionConflict(
            f"{what} was changed meanwhile: revision {stored}, not {given}", "read it again"
        )
