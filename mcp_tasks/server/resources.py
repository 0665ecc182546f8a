"""Tasks and their output as resources: `resources/list`, `resources/templates/list`, `resources/read`."""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Mapping
from typing import Any, Final

import mcp_types as types

from mcp_tasks.output import STREAMS
from mcp_tasks.requests import GetResult, ListTasks
from mcp_tasks.server.callers import Callers, Context
from mcp_tasks.server.phrases import duration
from mcp_tasks.server.protocol_errors import told_as_protocol_errors
from mcp_tasks.server.task_uris import TaskUri
from mcp_tasks.service import Caller, Excerpt, Service

__all__ = ["Resources"]

_PAGE: Final = 50
_LONGEST_NAME: Final = 80
_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"


class Resources:
    """The tasks of a session as a client's resources."""

    def __init__(self, service: Service, callers: Callers) -> None:
        self._service = service
        self._callers = callers

    async def list_resources(
        self, context: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        """Answer `resources/list`: the tasks of the caller's session, newest first, by page.

        Raises:
            MCPError: The cursor is none of this list, or nobody is known at the other end.
        """
        with told_as_protocol_errors(context):
            caller = self._callers.caller(context)
            cursor = params.cursor if params is not None else None
            page = await self._service.list_tasks(caller, ListTasks(limit=_PAGE, cursor=cursor))
        return types.ListResourcesResult(
            resources=[_resource(view) for view in page["tasks"]], next_cursor=page.get("next_cursor")
        )

    async def list_templates(
        self, _: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        """Answer `resources/templates/list`."""
        return types.ListResourceTemplatesResult(
            resource_templates=[
                types.ResourceTemplate(
                    uri_template="task://{task_id}",
                    name="task",
                    title="A task",
                    description="State, exit code, times, and both ends of the output, as get_result tells.",
                    mime_type=_JSON,
                ),
                *(_template(stream) for stream in STREAMS),
            ]
        )

    async def read(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        """Answer `resources/read`: text, or a blob where that is not UTF-8.

        Raises:
            MCPError: There is no such resource for the caller (-32602).
        """
        with told_as_protocol_errors(context, uri=params.uri):
            caller = self._callers.caller(context)
            task = TaskUri.parse(params.uri)
            if task.stream is None:
                return await self._record(caller, params.uri, task)
            excerpt = await self._service.read_output(
                caller, task.task_id, task.stream, task.offset, task.limit
            )
            return types.ReadResourceResult(contents=[_contents(params.uri, excerpt)])

    async def _record(self, caller: Caller, uri: str, task: TaskUri) -> types.ReadResourceResult:
        view = await self._service.get_result(caller, GetResult(task_id=task.task_id))
        text = json.dumps(view, ensure_ascii=False)
        return types.ReadResourceResult(
            contents=[types.TextResourceContents(uri=uri, mime_type=_JSON, text=text)]
        )


def _template(stream: str) -> types.ResourceTemplate:
    return types.ResourceTemplate(
        uri_template=f"task://{{task_id}}/{stream}{{?offset,limit}}",
        name=f"task-{stream}",
        title=f"What a task has written to {stream}",
        description="At most 262,144 bytes from `offset` on (0 without it); `_meta` of the contents tells "
        "where to read on. Text, or a blob where it is not UTF-8.",
    )


def _resource(view: Mapping[str, Any]) -> types.Resource:
    end = [view["state"]]
    if "exit_code" in view:
        end.append(f"exit code {view['exit_code']}")
    if "signal" in view:
        end.append(f"by {view['signal']}")
    end.append(duration(view["elapsed_ms"]))
    command = str(view.get("command", ""))
    return types.Resource(
        uri=f"task://{view['task_id']}",
        name=_cut(str(view.get("label") or command or view["task_id"])),
        description=f"{', '.join(end)}: {_cut(command)}",
        mime_type=_JSON,
        annotations=types.Annotations(
            last_modified=view.get("ended_at") or view.get("started_at") or view.get("created_at")
        ),
    )


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 1]}…"


def _contents(uri: str, excerpt: Excerpt) -> types.TextResourceContents | types.BlobResourceContents:
    """Text where the bytes are, but for a character that the limit or the present end cuts in two."""
    data = excerpt.data
    at_end = excerpt.offset + len(data) >= excerpt.size
    decoder = codecs.getincrementaldecoder("utf-8")()
    text: str | None
    try:
        text = decoder.decode(data, final=at_end and excerpt.is_complete)
    except UnicodeDecodeError:
        text = None
    held = len(decoder.getstate()[0])
    if text == "" and held and not at_end:
        text = None  # a limit of less than a character: its bytes, or nobody would ever get past it
    end = excerpt.offset + len(data) - (held if text is not None else 0)
    meta = {
        "mcp-tasks/offset": excerpt.offset,
        "mcp-tasks/next_offset": end,
        "mcp-tasks/size": excerpt.size,
        "mcp-tasks/run": excerpt.run,
        "mcp-tasks/complete": excerpt.is_complete and end >= excerpt.size,
    }
    if text is None:
        return types.BlobResourceContents(
            uri=uri, mime_type=_BYTES, blob=base64.b64encode(data).decode(), _meta=meta
        )
    return types.TextResourceContents(uri=uri, mime_type=_TEXT, text=text, _meta=meta)
