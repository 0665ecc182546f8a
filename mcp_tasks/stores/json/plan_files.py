"""The records of plans: `plans/<plan id>.json` in the folder of a session, made when first needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress

from mcp_tasks.codec import BrokenRecord, NewerSchema, decode_plan, encode_plan
from mcp_tasks.errors import InvalidArgument, PlanNotFound, RevisionConflict, SessionNotFound
from mcp_tasks.models import TASK_ID, Plan, PlanKey, SessionKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.locks import FolderGone
from mcp_tasks.stores.disk.state_folder import StateFolder
from mcp_tasks.stores.json.session_folders import SessionFolders

__all__ = ["PlanFiles"]


class PlanFiles:
    """Reads and writes them. A plan never changes, so nothing is compared."""

    def __init__(self, state: StateFolder, sessions: SessionFolders) -> None:
        """Nothing is read yet."""
        self._state = state
        self._sessions = sessions

    def create(self, plan: Plan) -> None:
        """See `Store.create_plan`."""
        key = plan.key
        if not TASK_ID.fullmatch(key.plan_id):
            raise InvalidArgument("the plan id must be 36 characters of 0-9 and a-z")
        data = encode_plan(plan)
        with ExitStack() as held:
            try:
                session = self._sessions.existing(key.session_key)
                held.enter_context(self._sessions.lock(key.session_key))
                os.lstat(f"{session}/session.json")
            except (FileNotFoundError, FolderGone):
                raise SessionNotFound(key.session) from None
            folder = f"{session}/plans"
            if durable.make_private_folder(folder, self._state.report):
                durable.fsync_folder(session)
            if not durable.create_exclusively(f"{folder}/{key.plan_id}.json", data):
                raise RevisionConflict(f"there is a plan {key.plan_id} already", "make a new id")

    def load(self, key: PlanKey) -> Plan:
        """See `Store.load_plan`. Raises NewerSchema for a newer version's record."""
        path = self._path(key)
        try:
            return self._read(key, path)
        except FileNotFoundError:
            raise PlanNotFound(key.plan_id) from None
        except NewerSchema as error:
            self._state.report(f"plan {key.plan_id}: {error.message}")
            raise
        except (BrokenRecord, durable.UnsafeFile):
            self._set_aside(key, path)
            raise PlanNotFound(key.plan_id) from None

    def all(self, session: SessionKey) -> Iterator[Plan]:
        """See `Store.plans`."""
        for name in sorted(self._sessions.record_names(session, "plans"), reverse=True):
            with suppress(PlanNotFound, NewerSchema):  # reported
                yield self.load(PlanKey(session.owner, session.session, name[:-5]))

    def refuse_newer(self, session: SessionKey) -> None:
        """Raise NewerSchema where a newer version wrote a plan of a session."""
        for name in self._sessions.record_names(session, "plans"):
            with suppress(PlanNotFound):
                self.load(PlanKey(session.owner, session.session, name[:-5]))

    def delete(self, key: PlanKey) -> None:
        """See `Store.delete_plan`."""
        try:
            path = self._path(key)
            os.unlink(path)
            durable.fsync_folder(os.path.dirname(path))
        except (FileNotFoundError, PlanNotFound):
            return
        except OSError as error:
            raise durable.unavailable("deleting a plan", error) from error

    def _path(self, key: PlanKey) -> str:
        if not TASK_ID.fullmatch(key.plan_id):
            raise PlanNotFound(key.plan_id)
        try:
            return f"{self._sessions.existing(key.session_key, 'plans')}/{key.plan_id}.json"
        except FileNotFoundError:
            raise PlanNotFound(key.plan_id) from None
        except durable.UnsafeFile as error:
            self._state.report(f"plan {key.plan_id}: {error.message}")
            raise PlanNotFound(key.plan_id) from None

    def _read(self, key: PlanKey, path: str) -> Plan:
        plan = decode_plan(durable.read_private(path, report=self._state.report))
        if plan.key != key:
            raise BrokenRecord("plan.key: the record is another plan's")
        return plan

    def _set_aside(self, key: PlanKey, path: str) -> None:
        with suppress(FileNotFoundError, FolderGone), self._sessions.lock(key.session_key):
            try:
                self._read(key, path)
            except NewerSchema:
                raise
            except (BrokenRecord, durable.UnsafeFile) as error:
                self._state.set_aside(path, error.message)
