"""The plans of the SQLite store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from mcp_tasks.codec import NewerSchema, encode_plan
from mcp_tasks.errors import InvalidArgument, PlanNotFound, RevisionConflict, SessionNotFound
from mcp_tasks.models import TASK_ID, Plan, PlanKey, SessionKey
from mcp_tasks.stores.database.connections import Connection
from mcp_tasks.stores.sqlite.rows import PLANS, SESSIONS, RecordRows

__all__ = ["PlanRows"]


class PlanRows:
    """Writes and lists them. A plan never changes, so nothing is compared."""

    def __init__(self, rows: RecordRows) -> None:
        """Nothing is read yet."""
        self._rows = rows

    def create(self, plan: Plan) -> None:
        """See `Store.create_plan`."""
        key = plan.key
        if not TASK_ID.fullmatch(key.plan_id):
            raise InvalidArgument("the plan id must be 36 characters of 0-9 and a-z")
        data = encode_plan(plan)

        def write(connection: Connection) -> None:
            if self._rows.stored(connection, SESSIONS, key.session_key) is None:
                raise SessionNotFound(key.session)
            try:
                connection.execute(
                    "INSERT INTO plans (owner, session, plan_id, data) VALUES (?, ?, ?, ?)",
                    (*PLANS.address(key), data),
                )
            except sqlite3.IntegrityError:
                raise RevisionConflict(f"there is a plan {key.plan_id} already", "make a new id") from None

        self._rows.change(write)

    def all(self, session: SessionKey) -> Iterator[Plan]:
        """See `Store.plans`."""
        ids = self._rows.select(
            "SELECT plan_id FROM plans WHERE owner = ? AND session = ? ORDER BY plan_id DESC",
            *SESSIONS.address(session),
        )
        for (plan_id,) in ids:
            try:
                yield self._rows.read(PLANS, PlanKey(session.owner, session.session, plan_id))
            except (PlanNotFound, NewerSchema):
                continue  # gone meanwhile, or reported

    def delete(self, key: PlanKey) -> None:
        """See `Store.delete_plan`."""
        where = f"FROM plans WHERE {PLANS.where}"
        if self._rows.select(f"SELECT 1 {where}", *PLANS.address(key)):
            self._rows.change(
                lambda connection: connection.execute(f"DELETE {where}", PLANS.address(key)).rowcount
            )
