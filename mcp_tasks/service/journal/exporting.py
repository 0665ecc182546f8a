"""A session as one text, for other programs (JSON) or for people (Markdown).

The text is made message by message. What is read by page is made once, for its first page, and kept
compressed for a while: a journal grows by the very calls that read it, and pages of two different texts
would not fit together.
"""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from mcp_tasks.clock import rfc3339
from mcp_tasks.models import Message, SessionKey
from mcp_tasks.reconcile import Sight
from mcp_tasks.requests import ExportSession
from mcp_tasks.service.access import Caller
from mcp_tasks.service.desk import Desk, View
from mcp_tasks.service.journal.journaling import message_view

__all__ = ["FORMAT_VERSION", "Exporting"]

_FORMAT = "mcp-tasks session"
FORMAT_VERSION = 1

_BLOCK = 262_144
_KEPT = 4
_KEPT_MS = 600_000
_SUMMARIES = 100
_FENCE = re.compile(r"`{3,}")


class Exporting:
    """The use case of `export_session`, whole and by page."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._kept: OrderedDict[tuple[SessionKey, str, str | None], tuple[int, _Snapshot]] = OrderedDict()
        self._guard = threading.Lock()

    async def export_session(self, caller: Caller, request: ExportSession) -> View:
        """One page of the text."""
        return await self._desk.blocking(self._export, caller, request)

    def _export(self, caller: Caller, request: ExportSession) -> View:
        snapshot = self._snapshot(caller, request.format, fresh=request.offset == 0)
        start, text = snapshot.read(request.offset, request.limit)
        end = start + len(text.encode())
        answer: View = {
            "session": caller.session,
            "format": request.format,
            "text": text,
            "offset": start,
            "total_bytes": snapshot.total_bytes,
        }
        if end < snapshot.total_bytes:
            answer |= {"next_offset": end, "more": True}
        return answer

    def _snapshot(self, caller: Caller, kind: str, *, fresh: bool) -> _Snapshot:
        now, name = self._desk.clock.now_ms(), (caller.session_key, kind, caller.via)
        with self._guard:
            for old in [key for key, (made, _) in self._kept.items() if now - made > _KEPT_MS]:
                del self._kept[old]
            if not fresh and name in self._kept:
                return self._kept[name][1]
        snapshot = _Snapshot(self.pieces(caller, kind))
        with self._guard:
            self._kept[name] = now, snapshot
            self._kept.move_to_end(name)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return snapshot

    def pieces(self, caller: Caller, kind: str) -> Iterator[str]:
        """The text, piece by piece. Blocking."""
        self._desk.journal.flush()
        session = self._desk.records.find(caller.session_key)
        head: dict[str, Any] = {"name": caller.session}
        if session is not None:
            head |= {"title": session.title, "created_at": rfc3339(session.created_at)}
            head["state"] = session.state.kind
        head = {name: value for name, value in head.items() if value is not None}
        now = rfc3339(self._desk.clock.now_ms())
        make = _as_json if kind == "json" else _as_markdown
        return make(head, now, self._tasks(caller), self._desk.journal.everything(caller.session_key))

    def _tasks(self, caller: Caller) -> Iterator[dict[str, Any]]:
        for sights in _batches(self._desk.matching(caller, None, None)):
            for sight, view in zip(sights, self._desk.presenter.summaries(sights), strict=True):
                yield {**view, "command": sight.task.spec.command}


def _batches(sights: Iterable[Sight]) -> Iterator[list[Sight]]:
    batch: list[Sight] = []
    for sight in sights:
        batch.append(sight)
        if len(batch) == _SUMMARIES:
            yield batch
            batch = []
    if batch:
        yield batch


class _Snapshot:
    """A text, compressed in blocks that can be read one by one."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._blocks: list[bytes] = []
        self.total_bytes = 0
        waiting = bytearray()
        for piece in pieces:
            waiting += piece.encode("utf-8", "backslashreplace")
            while len(waiting) >= _BLOCK:
                self._keep(bytes(waiting[:_BLOCK]))
                del waiting[:_BLOCK]
        self._keep(bytes(waiting))

    def _keep(self, block: bytes) -> None:
        self._blocks.append(zlib.compress(block, 1))
        self.total_bytes += len(block)

    def read(self, offset: int, limit: int) -> tuple[int, str]:
        """The text from about `offset` on and where it begins: no character is cut in two."""
        first, last = offset // _BLOCK, (offset + limit + 3) // _BLOCK
        data = b"".join(zlib.decompress(block) for block in self._blocks[first : last + 1])
        begin = min(offset - first * _BLOCK, len(data))
        while begin < len(data) and data[begin] & 0xC0 == 0x80:
            begin += 1
        end = min(begin + limit, len(data))
        while begin < end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        if end == begin < len(data):  # one character is more than the limit
            end = begin + 1
            while end < len(data) and data[end] & 0xC0 == 0x80:
                end += 1
        start = min(first * _BLOCK + begin, self.total_bytes)
        return start, data[begin:end].decode()


def _exported(message: Message) -> dict[str, Any]:
    fields = message_view(message)
    if message.versions:
        fields["versions"] = [{"at": rfc3339(one.at), "text": one.text} for one in message.versions]
    return fields


def _as_json(
    session: dict[str, Any], now: str, tasks: Iterable[dict[str, Any]], messages: Iterable[Message]
) -> Iterator[str]:
    head = {"format": _FORMAT, "version": FORMAT_VERSION, "exported_at": now, "session": session}
    yield json.dumps(head, ensure_ascii=False)[:-1] + ',\n"tasks": ['
    yield from _listed(tasks)
    yield '],\n"messages": ['
    yield from _listed(map(_exported, messages))
    yield "]}\n"


def _listed(values: Iterable[dict[str, Any]]) -> Iterator[str]:
    separator = "\n"
    for value in values:
        yield separator + json.dumps(value, ensure_ascii=False)
        separator = ",\n"


def _as_markdown(
    session: dict[str, Any], now: str, tasks: Iterable[dict[str, Any]], messages: Iterable[Message]
) -> Iterator[str]:
    yield f"# Session {_line(session['name'])}\n\n"
    if session.get("title"):
        yield f"{_line(session['title'])}\n\n"
    known = ", ".join(f"{name} {session[name]}" for name in ("created_at", "state") if name in session)
    yield f"Exported {now}{f'; {known}' if known else ''}.\n\n## Tasks\n\n"
    none = True
    for task in tasks:
        none = False
        yield _task_line(task)
    yield "none\n" if none else ""
    yield "\n## Journal\n\n"
    none = True
    for message in messages:
        none = False
        yield from _message_lines(message)
    yield "empty\n" if none else ""


def _task_line(task: dict[str, Any]) -> str:
    end = task.get("signal") or task.get("exit_code")
    told = [str(task["state"])] + ([f"exit {end}"] if end is not None else [])
    told += [str(task[name]) for name in ("label", "created_at") if task.get(name)]
    return f"- `{task['task_id']}` {', '.join(told)}: {_code(str(task.get('command', '')))}\n"


def _message_lines(message: Message) -> Iterator[str]:
    told = [rfc3339(message.at)]
    if message.task_id:
        told.append(f"task `{message.task_id}`")
    if message.parent:
        told.append(f"answers `{message.parent}`")
    if message.edited_at is not None:
        told.append(f"edited {rfc3339(message.edited_at)}")
    yield f"### {message.seq}. {message.role} ({', '.join(told)})\n\n`{message.message_id}`\n\n"
    yield _fenced(message.text)
    for version in message.versions:
        yield f"Before, since {rfc3339(version.at)}:\n\n{_fenced(version.text)}"
    if message.data:
        yield _fenced(json.dumps(message.data, ensure_ascii=False), "json")


def _fenced(text: str, kind: str = "text") -> str:
    """A text as it is, whatever is in it: the fence is longer than any in the text."""
    fence = "`" * max((len(found) + 1 for found in _FENCE.findall(text)), default=3)
    return f"{fence}{kind}\n{text}\n{fence}\n\n"


def _code(text: str) -> str:
    line = _line(text)
    ticks = "`" * (max((len(found) for found in re.findall("`+", line)), default=0) + 1)
    return f"{ticks} {line} {ticks}" if "`" in line else f"`{line}`"


def _line(text: str) -> str:
    return " ".join(str(text).split())
