"""The journal of a session: writing into it, reading, searching and folding it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from mcp_tasks.clock import rfc3339
from mcp_tasks.errors import InvalidArgument, SessionNotFound, StoreUnavailable
from mcp_tasks.models import Draft, Message, SessionKey, Version
from mcp_tasks.redaction import redact_text
from mcp_tasks.requests import AddMessage, ReadJournal, SearchJournal
from mcp_tasks.service.access import Caller, needed
from mcp_tasks.service.desk import Desk, View
from mcp_tasks.service.journal.entries import ToolCall, call_entry

__all__ = ["Journaling", "message_view"]

_PAGE_JSON = 50_000
_MOST_LOOKS = 1_000
_SPOKEN = ("user", "assistant", "system")
_CURSOR = re.compile(r"([onav])([1-9][0-9]{0,12})", re.ASCII)


class Journaling:
    """Use cases of the journal. Reading never makes a session, and what is not there is empty."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        # What has been looked at since something was done. Only the thread that writes entries knows it.
        self._looks: dict[SessionKey, set[tuple[str, ...]]] = {}

    async def add_message(self, caller: Caller, request: AddMessage) -> View:
        """Write a message, or give one another text."""
        async with self._desk.turns.of(caller.session_key):
            return await self._desk.blocking(self._add, caller, request)

    def _add(self, caller: Caller, request: AddMessage) -> View:
        desk, key = self._desk, caller.session_key
        text = redact_text(request.text, desk.workspaces.secret_values(key))
        now = desk.clock.now_ms()
        if request.replaces is not None:
            old = desk.journal.load(key, _id(request.replaces))
            if old.role not in _SPOKEN:
                raise InvalidArgument(
                    f"replaces names an entry of the role {old.role}",
                    "only what somebody said can be given another text",
                )
            message = desk.journal.edit(key, old.message_id, text, now)
            return {"session": key.session, "message": message_view(message)}
        task_id = None if request.task_id is None else desk.find(caller, request.task_id).task_id
        parent = None if request.parent is None else _id(request.parent)
        if parent is not None:
            desk.journal.load(key, parent)  # before a session is made for a message that is refused
        session = desk.records.change(key, lambda session: session, caller.by)
        draft = Draft(key, request.role, text, now, task_id, parent, sealed=session.seal_journal)
        (message,) = desk.journal.append([draft])
        return {"session": key.session, "message": message_view(message)}

    async def read_journal(self, caller: Caller, request: ReadJournal) -> View:
        """One page of the journal, of a thread, a branch, or the versions of a message."""
        return await self._desk.blocking(self._read, caller, request)

    def _read(self, caller: Caller, request: ReadJournal) -> View:
        key, journal = caller.session_key, self._desk.journal
        chosen = [name for name in ("thread", "branch", "versions") if getattr(request, name) is not None]
        if len(chosen) > 1:
            raise InvalidArgument(f"{chosen[0]} does not go with {chosen[1]}", "give one of them")
        journal.flush()
        if request.versions is not None:
            return self._versions(key, _id(request.versions), request)
        if request.thread is not None or request.branch is not None:
            after = _read_cursor(request.cursor, "a")
            if request.thread is not None:
                found = journal.thread(key, _id(request.thread), folded=request.folded)
            else:
                found = journal.branch(key, _id(request.branch or ""), folded=request.folded)
            found = [
                message
                for message in found
                if message.seq > (after or 0)
                and request.role in (None, message.role)
                and request.task_id in (None, message.task_id)
            ]
            return _page(key, found, request.limit, "a")
        newest_first = request.order == "newest"
        letter = "n" if newest_first else "o"
        at = _read_cursor(request.cursor, letter)
        found = journal.read(
            key,
            before=at if newest_first else None,
            after=None if newest_first else at,
            limit=request.limit + 1,
            newest_first=newest_first,
            role=request.role,
            task_id=request.task_id,
            folded=request.folded,
        )
        return _page(key, found, request.limit, letter)

    def _versions(self, key: SessionKey, message_id: str, request: ReadJournal) -> View:
        done = _read_cursor(request.cursor, "v") or 0
        message = self._desk.journal.load(key, message_id)
        versions = self._desk.journal.versions(key, message_id)[done:]
        views = _fitting(_version_view(message, one) for one in versions[: request.limit])
        answer: View = {"session": key.session, "messages": views}
        if len(views) < len(versions):
            answer["next_cursor"] = f"v{done + len(views)}"
        return answer

    async def search_journal(self, caller: Caller, request: SearchJournal) -> View:
        """The messages that have all the words, newest first."""
        if not any(char.isalnum() for char in request.text):
            raise InvalidArgument("text has no word to search for", "give words, as they stand in messages")
        before = _read_cursor(request.cursor, "n")

        def found() -> View:
            key = caller.session_key
            self._desk.journal.flush()
            messages = self._desk.journal.search(key, request.text, limit=request.limit + 1, before=before)
            return _page(key, messages, request.limit, "n")

        return await self._desk.blocking(found)

    async def prune(self, caller: Caller, keep: int | None) -> View:
        """Fold the oldest messages until `keep` are live; without it, as many as the session may have."""

        def pruned() -> View:
            key = caller.session_key
            self._desk.journal.flush()
            limit = self._limit(key) if keep is None else keep
            folded = self._desk.journal.prune(key, limit) if limit or keep is not None else 0
            return {"session": key.session, "folded": folded, "live": self._desk.journal.figures(key).live}

        async with self._desk.turns.of(caller.session_key):
            return await self._desk.blocking(pruned)

    async def stats(self, caller: Caller) -> View:
        """How many messages there are, how old they are, and when the session was used last."""
        return await self._desk.blocking(self._stats, caller.session_key)

    def _stats(self, key: SessionKey) -> View:
        self._desk.journal.flush()
        figures, now = self._desk.journal.figures(key), self._desk.clock.now_ms()
        view: View = {
            "session": key.session,
            "live": figures.live,
            "folded": figures.folded,
            "limit": self._limit(key) or None,
        }
        for name in ("oldest_at", "newest_at", "active_at"):
            if (moment := getattr(figures, name)) is not None:
                view[name] = rfc3339(moment)
        if figures.oldest_at is not None:
            view["age_ms"] = max(0, now - figures.oldest_at)
        if figures.active_at is not None:
            view["idle_ms"] = max(0, now - figures.active_at)
        return view

    def _limit(self, key: SessionKey) -> int:
        session = self._desk.records.find(key)
        if session is None or session.journal_limit is None:
            return self._desk.journal_limit
        return session.journal_limit

    def note_call(self, caller: Caller, call: ToolCall) -> None:
        """Write down a call of a tool, soon. Costs the caller next to nothing, and never raises.

        A call in a session that does not exist leaves nothing, nor does a look that was there already since
        something was done, and shows the same state: a task that is polled for hours is no news. A message
        is its own entry.
        """
        desk, brief = self._desk, call.brief()
        in_session = brief.answer.get("session")

        def made() -> Draft | None:
            try:
                admitted = desk.access.admit_now(caller)
                name = in_session if isinstance(in_session, str) else admitted.session
                key = SessionKey(admitted.owner, name)
                session, secrets = desk.workspaces.known(key)
            except (SessionNotFound, StoreUnavailable):
                return None
            if session is None:
                return None
            desk.journal.touch(key, brief.at)
            return None if self._is_no_news(key, brief) else call_entry(key, brief, admitted.by, secrets)

        desk.journal.note(made)

    def _is_no_news(self, key: SessionKey, call: ToolCall) -> bool:
        if "code" in call.answer:
            return False
        if needed(call.tool) != "read":
            self._looks.pop(key, None)
            return call.tool == AddMessage.tool
        if len(self._looks) > _MOST_LOOKS:
            self._looks.clear()
        looks = self._looks.setdefault(key, set())
        of = call.answer.get("task_id") or call.arguments.get("task_id")
        look = (call.tool, str(of), str(call.answer.get("state")))
        if look in looks:
            return True
        if len(looks) < _MOST_LOOKS:
            looks.add(look)
        return False


def message_view(message: Message, longest: int | None = None) -> View:
    """A message as tools and exports show it; empty fields are left out.

    Args:
        message: What to show.
        longest: Characters of the text; what is beyond is counted in `omitted_characters`.
    """
    text, omitted = message.text, 0
    if longest is not None and len(text) > longest:
        text, omitted = text[:longest], len(text) - longest
    fields: dict[str, Any] = {
        "task_id": message.task_id,
        "parent": message.parent,
        "data": dict(message.data) or None,
        "edited_at": rfc3339(message.edited_at) if message.edited_at is not None else None,
        "omitted_characters": omitted or None,
    }
    return {
        "message_id": message.message_id,
        "seq": message.seq,
        "role": message.role,
        "text": text,
        "at": rfc3339(message.at),
        **{name: value for name, value in fields.items() if value is not None},
    }


def _version_view(message: Message, version: Version) -> View:
    return {
        "message_id": message.message_id,
        "seq": message.seq,
        "role": message.role,
        "text": version.text[: _PAGE_JSON // 12],
        "at": rfc3339(version.at),
    }


def _page(key: SessionKey, found: Sequence[Message], limit: int, letter: str) -> View:
    """As many messages as are asked for and as one answer can hold; at least one if there is one."""
    views = _fitting(message_view(message, _PAGE_JSON // 12) for message in found[:limit])
    answer: View = {"session": key.session, "messages": views}
    if len(views) < len(found):
        answer["next_cursor"] = f"{letter}{found[len(views) - 1].seq}"
    return answer


def _fitting(views: Iterable[View]) -> list[View]:
    taken: list[View] = []
    size = 0
    for view in views:
        size += len(json.dumps(view)) + 2
        if taken and size > _PAGE_JSON:
            break
        taken.append(view)
    return taken


def _read_cursor(cursor: str | None, letter: str) -> int | None:
    """The sequence number in a cursor, which belongs to one kind of listing."""
    if cursor is None:
        return None
    match = _CURSOR.fullmatch(cursor)
    if match is None or match[1] != letter:
        raise InvalidArgument(
            "cursor is not one of this listing",
            "give the next_cursor of the last answer, with the same order",
        )
    return int(match[2])


def _id(message_id: str) -> str:
    return message_id.strip()
