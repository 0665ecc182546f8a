"""All sessions of one place into another, checked afterwards; killed at any moment, done again, it goes on.

The source is only read. The target remembers in `transfer.json` what it was being given, so that a copy
that is resumed is told apart from other sessions of the same names.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcp_tasks.errors import InvalidArgument, SessionNotFound, StoreUnavailable, TaskNotFinished
from mcp_tasks.models import Session, SessionKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.locks import ProcessLock
from mcp_tasks.stores.disk.state_folder import boot_id
from mcp_tasks.stores.disk.syncing import synced_once
from mcp_tasks.transfer.beside import copy_beside
from mcp_tasks.transfer.places import Place
from mcp_tasks.transfer.sessions import Seen, Totals, Transfer

__all__ = ["Migrated", "migrate"]

_LEDGER = "transfer.json"
_MOST_BYTES = 1 << 28
_LOCK_S = 1.0
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a migration came to. `differences` is empty where all is well."""

    totals: Totals
    differences: tuple[str, ...]
    resumed: bool


def migrate(source: Place, target: Place, *, at: int, seen: Seen, live: bool = False) -> Migrated:
    """Copy every session of one place into another, and compare.

    Args:
        source: Where they are; nothing is written there.
        target: Where they go; its own sessions of other names stay.
        at: Moment of the copy, ms since the epoch.
        seen: How to look at a task that is not final by its record.
        live: Take pending tasks over as cancelled and running ones as lost, instead of refusing.

    Raises:
        TaskNotFinished: Something is pending or running, and it is not `live`. Nothing was copied.
        InvalidArgument: The target has other data under the name of a session. Nothing was copied.
        StoreUnavailable: Either side failed. Done again, it goes on.
        StoreBusy: Another process is copying into the same target.
    """
    with ProcessLock(os.fspath(target.root / "transfer.lock"), _LOCK_S).held():
        if not live:
            _refuse_unfinished(source, seen)
        sessions = source.store.sessions()
        ledger = _Ledger(target.root)
        resumed = ledger.begin(source, target, sessions, at)
        transfer = Transfer(source, target, at, live, seen, compare=ledger.is_doubtful)
        totals = Totals()
        try:
            # In the ledger the copy is not whole before all of it is on the disk.
            with synced_once(target.root):
                for session in sessions:
                    totals += transfer.copy(session)
                target.journal.flush()
                copy_beside(source.root, target.root)
        except OSError as error:
            raise durable.unavailable("copying sessions", error) from error
        ledger.end()
        differences: list[str] = []
        if not live:  # of a live copy each task was compared when it was copied
            for session in sessions:
                differences += transfer.check(session)
        return Migrated(totals, tuple(differences), resumed)


def _refuse_unfinished(source: Place, seen: Seen) -> None:
    open_tasks = [
        task for key in source.store.unfinished() if not (task := seen(source.store.load(key))).is_final
    ]
    if open_tasks:
        named = ", ".join(f"{task.key.task_id} ({task.state_name})" for task in open_tasks[:_NAMED])
        more = f" and {len(open_tasks) - _NAMED} more" if len(open_tasks) > _NAMED else ""
        raise TaskNotFinished(
            f"not everything there is over: {named}{more}",
            "wait for their end or cancel them; --live takes them over as lost or cancelled",
        )


class _Ledger:
    """What the target was being given, and by whom.

    Attributes:
        is_doubtful: An earlier attempt was not ended before the machine was, so what it wrote may be spoilt.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / _LEDGER
        self._noted: dict[str, Any] = {}
        self.is_doubtful = False

    def begin(self, source: Place, target: Place, sessions: list[Session], at: int) -> bool:
        """Note what is about to come; whether it is the same copy resumed. Raises InvalidArgument."""
        known = self._noted = self._read()
        origin = os.path.realpath(source.root)
        ours = {SessionKey(*pair) for pair in known.get("sessions", []) if known.get("source") == origin}
        strange = [
            session.key.session
            for session in sessions
            if session.key not in ours and _has_data(target, session.key)
        ]
        if strange:
            raise InvalidArgument(
                f"the target has sessions of the same names: {', '.join(strange[:_NAMED])}",
                "migrate into a new folder, or archive or rename those first",
            )
        boot = boot_id()
        doubted = not known.get("whole", True) and known.get("boot", boot) != boot
        self.is_doubtful = bool(ours) and (doubted or bool(known.get("doubtful")))
        self._note(
            source=origin,
            begun_at=at,
            boot=boot,
            whole=False,
            doubtful=self.is_doubtful,
            sessions=sorted([key.owner, key.session] for key in ours | {one.key for one in sessions}),
        )
        return bool(ours)

    def end(self) -> None:
        """Note that all of it is on the disk. Raises StoreUnavailable."""
        self._note(whole=True, doubtful=False)

    def _note(self, **fields: object) -> None:
        previous = json.dumps(self._noted).encode() if self._noted else None
        noted = {**self._noted, **fields}
        durable.write_durably(self._path, json.dumps(noted).encode(), previous=previous)
        self._noted = noted

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(durable.read_private(self._path, _MOST_BYTES))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise StoreUnavailable(f"{_LEDGER} of the target cannot be read", "remove that file") from error
        return known if isinstance(known, dict) else {}


def _has_data(place: Place, key: SessionKey) -> bool:
    figures = place.journal.figures(key)
    if figures.live or figures.folded or next(iter(place.store.tasks(key)), None) is not None:
        return True
    try:
        session = place.store.load_session(key)
    except SessionNotFound:
        return False
    return session != replace(Session(key, session.created_at), revision=session.revision)
