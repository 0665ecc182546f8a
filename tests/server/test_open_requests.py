from __future__ import annotations

from typing import Any

import anyio
import mcp_types as types

from mcp_tasks.server.open_requests import OpenRequests


def request(number: int | str, method: str = "tools/call") -> types.JSONRPCRequest:
    return types.JSONRPCRequest(jsonrpc="2.0", id=number, method=method)


def notification(method: str, **params: Any) -> types.JSONRPCNotification:
    return types.JSONRPCNotification(jsonrpc="2.0", method=method, params=params)


def test_a_request_is_open_until_it_is_answered_or_cancelled() -> None:
    requests = OpenRequests()
    for number in (1, "2", 3):
        requests.asked(request(number))
    requests.told(types.JSONRPCResponse(jsonrpc="2.0", id=1, result={}))
    assert len(requests) == 2
    requests.told(types.JSONRPCError(jsonrpc="2.0", id=2, error=types.ErrorData(code=1, message="no")))
    assert len(requests) == 1
    requests.told(notification("notifications/progress"))
    requests.asked(notification("notifications/cancelled", requestId=3))
    assert not requests


def test_nobody_waits_for_the_end_of_a_subscription() -> None:
    requests = OpenRequests()
    requests.asked(request(1, "subscriptions/listen"))
    assert not requests


async def test_who_waits_for_a_change_learns_of_each_answer() -> None:
    requests = OpenRequests()
    requests.asked(request(1))
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(requests.change)
            await anyio.lowlevel.checkpoint()
            requests.told(types.JSONRPCResponse(jsonrpc="2.0", id=1, result={}))
    assert not requests
