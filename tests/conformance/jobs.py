"""The tools of the tasks scenarios. Each runs a command through `run_command`, so its task is a real one."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types

from mcp_tasks.server.callers import Context
from mcp_tasks.server.native_tasks import require_declared
from tests.conformance.contents import Call, Tool, text
from tests.conformance.questions import ask, form, given

__all__ = ["Run", "job_tools"]

Run = Callable[[Context, str], Awaitable[dict[str, Any]]]
"""Calls our own run_command."""

_LONGER = 1.4
"""How much longer a job takes than it is asked to: a command that ends within a second is no task of ours."""


def job_tools(run: Run) -> dict[str, Tool]:
    """The tools, by name."""
    calls: dict[str, Call] = {
        "greet": _greet,
        "slow_compute": _slow_compute(run),
        "failing_job": _failing_job(run),
        "protocol_error_job": _failing_job(run),
        "confirm_delete": _does_not_ask(run),
        "multi_input": _does_not_ask(run),
        "test_tool_with_task": _asks_first(run),
    }
    return {name: ({"type": "object", "properties": {}}, call) for name, call in calls.items()}


async def _greet(_: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
    return {"content": [text(f"Hello, {(params.arguments or {}).get('name')}!")]}


def _slow_compute(run: Run) -> Call:
    async def call(context: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
        seconds = float((params.arguments or {}).get("seconds", 0))
        return await run(context, f"sleep {seconds * _LONGER}; echo computed")

    return call


def _failing_job(run: Run) -> Call:
    """A job for clients with the extension alone."""

    async def call(context: Context, _: types.CallToolRequestParams) -> dict[str, Any]:
        require_declared(context)
        return await run(context, f"sleep {_LONGER}; exit 1")

    return call


def _does_not_ask(run: Run) -> Call:
    """What asks in the middle of its work, as far as a command can be it: it works, and does not ask."""

    async def call(context: Context, _: types.CallToolRequestParams) -> dict[str, Any]:
        return await run(context, f"sleep {_LONGER}")

    return call


def _asks_first(run: Run) -> Call:
    async def call(context: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
        response = given(params.input_responses, "user_name")
        if response is None:
            return ask({"user_name": form("What is your name?", name={"type": "string"})}, {"kind": "name"})
        name = shlex.quote(str(response.get("content", {}).get("name")))
        return await run(context, f"sleep {_LONGER}; echo Hello, {name}")

    return call
