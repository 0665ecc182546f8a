"""What a request that is no tool call is told where it cannot be served."""

from __future__ import annotations

from typing import Any, cast

import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from mcp_tasks.errors import (
    InvalidArgument,
    PolicyDenied,
    SessionNotFound,
    ShareNotValid,
    StoreUnavailable,
    TaskNotFound,
    TasksError,
)
from mcp_tasks.server.callers import Context
from mcp_tasks.server.protocol_errors import told_as_protocol_errors


class _Request:
    method = "resources/read"


def _told(error: Exception) -> MCPError:
    with pytest.raises(MCPError) as caught, told_as_protocol_errors(cast("Context", _Request())):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskNotFound("0" * 36), types.INVALID_PARAMS),
        (SessionNotFound("build"), types.INVALID_PARAMS),
        (ShareNotValid(), types.INVALID_PARAMS),
        (InvalidArgument("limit is not right", "give less"), types.INVALID_PARAMS),
        (PolicyDenied("a share does not let you", "ask the owner"), types.INVALID_REQUEST),
        (StoreUnavailable("the disk is away"), types.INTERNAL_ERROR),
    ],
)
def test_each_error_has_its_code_and_hint(error: TasksError, code: int) -> None:
    told = _told(error)
    assert (told.code, told.message) == (code, error.message)
    data: dict[str, Any] = told.data
    assert (data["code"], data["hint"]) == (error.code, error.hint)


def test_an_error_of_a_group_is_told_as_if_it_were_alone() -> None:
    group = ExceptionGroup("several", [ExceptionGroup("deeper", [TaskNotFound("0" * 36)])])
    assert _told(group).code == types.INVALID_PARAMS
    inner = MCPError(types.METHOD_NOT_FOUND, "Method not found")
    assert _told(ExceptionGroup("one", [inner])) is inner
    assert _told(inner) is inner


def test_a_secret_in_a_message_is_not_told() -> None:
    assert "ghp_" not in _told(InvalidArgument(f"'ghp_{'a1' * 18}' is no address", "")).message


def test_what_is_not_ours_to_tell_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    told = _told(RuntimeError("the inner word"))
    assert told.code == types.INTERNAL_ERROR
    assert "inner word" not in told.message
    assert told.message.split("incident ")[1].split(";")[0] in caplog.text
