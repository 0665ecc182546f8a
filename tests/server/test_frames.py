from __future__ import annotations

import json

import mcp_types as types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tasks.server.frames import decoded, request_key
from mcp_tasks.server.wire import Oversized


def error_of(line: bytes | Oversized) -> types.JSONRPCError:
    message = decoded(line)
    assert isinstance(message, types.JSONRPCError)
    return message


def test_a_request_a_notification_and_an_answer_are_carried_on() -> None:
    assert isinstance(decoded(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\r'), types.JSONRPCRequest)
    assert isinstance(decoded(b'{"jsonrpc":"2.0","method":"x"}'), types.JSONRPCNotification)
    assert isinstance(decoded(b'{"jsonrpc":"2.0","id":1,"result":{}}'), types.JSONRPCResponse)


@pytest.mark.parametrize("line", [b"", b"  ", b"\r"])
def test_an_empty_line_is_nothing(line: bytes) -> None:
    assert decoded(line) is None


def test_answers_to_what_was_never_asked_are_dropped() -> None:
    assert decoded(b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}') is None
    assert decoded(b'{"jsonrpc":"2.0","id":1,"error":"x"}') is None
    assert decoded(b'{"jsonrpc":"2.0","id":1,"result":5}') is None


@pytest.mark.parametrize(
    ("line", "code", "request_id"),
    [
        (b"x" * 1_000_000, types.PARSE_ERROR, None),
        (b"\xff\xfe\x00", types.PARSE_ERROR, None),
        (b"[" * 100_000, types.PARSE_ERROR, None),
        (b'{"jsonrpc":"2.0","id":"q","method":"a\xff"}', types.PARSE_ERROR, "q"),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', types.INVALID_REQUEST, None),
        (b"5", types.INVALID_REQUEST, None),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":[]}', types.INVALID_REQUEST, 7),
        (b'{"jsonrpc":"1.0","id":"a","method":"ping"}', types.INVALID_REQUEST, "a"),
        (b'{"jsonrpc":"2.0","id":true,"method":5}', types.INVALID_REQUEST, None),
        (b'{"id":3}', types.INVALID_REQUEST, 3),
    ],
)
def test_what_is_no_request_is_answered_where_it_says_for_whom(
    line: bytes, code: int, request_id: int | str | None
) -> None:
    error = error_of(line)
    assert (error.error.code, error.id) == (code, request_id)


@pytest.mark.parametrize(
    ("head", "tail", "request_id"),
    [
        (b'{"jsonrpc":"2.0","id":77,"method":"x', b"", 77),
        (b'{"id":"a\\"b" , "jsonrpc":"2.0"', b"", 'a"b'),
        (b'{"method":"x', b'"},"jsonrpc":"2.0","id":5}', 5),
        (b'{"method":"x', b'"},"id":-5,"jsonrpc":"2.0"}  ', -5),
        (b'{"method":"x","params":{"id":5,', b'"arguments":{"id":6}}}', None),
        (b'{"jsonrpc":"2.0","id":"\\x","method":"x', b"", None),
        (b"\xff\xff", b"\xff\xff", None),
    ],
)
def test_an_oversized_request_is_answered_where_its_id_is_beyond_doubt(
    head: bytes, tail: bytes, request_id: int | str | None
) -> None:
    error = error_of(Oversized(head, tail))
    assert (error.error.code, error.id) == (types.INVALID_REQUEST, request_id)


def test_ids_that_the_sdk_takes_for_the_same_are_the_same() -> None:
    assert request_key(7) == request_key("7")


@given(
    st.binary(max_size=200)
    | st.dictionaries(st.text(), st.none() | st.integers() | st.text()).map(json.dumps)
)
def test_no_line_raises(line: bytes | str) -> None:
    message = decoded(line.encode("utf-8", "replace") if isinstance(line, str) else line)
    if isinstance(message, types.JSONRPCError):
        assert json.loads(message.model_dump_json(by_alias=True, exclude_unset=True))["jsonrpc"] == "2.0"
