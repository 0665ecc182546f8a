from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from mcp_tasks.errors import (
    InternalError,
    InvalidArgument,
    LimitReached,
    NotSupported,
    PolicyDenied,
    StoreUnavailable,
    TaskNotFound,
    TasksError,
)
from mcp_tasks.remote import Patience
from mcp_tasks.remote.address import Address
from mcp_tasks.remote.connection import Ask, Connection
from tests.remote.faults import answering, response

GET = Ask("GET", "/tasks", is_repeatable=True, what="the list")
POST = Ask("POST", "/tasks/1/input", body={"text": "yes"})
HUNG_UP = b""
WELL = response("200 OK", b'{"well": true}')


def problem(status: str, code: str, *headers: str) -> bytes:
    body = json.dumps({"code": code, "detail": "it was so", "hint": "do it so"}).encode()
    return response(status, body, "Content-Type: application/problem+json", *headers)


@pytest.fixture
def told() -> list[str]:
    return []


@asynccontextmanager
async def connected(
    port: int,
    told: list[str],
    patience: Patience = Patience(5.0, 5.0),  # noqa: B008 - frozen
) -> AsyncIterator[Connection]:
    address = Address.parse(f"http://127.0.0.1:{port}")
    async with Connection(address, SecretStr("secret-token"), told.append, patience) as connection:
        yield connection


async def test_what_reads_is_asked_again_until_it_is_answered_and_that_is_told_once(told: list[str]) -> None:
    with answering([HUNG_UP, HUNG_UP, response("502 Bad Gateway", b"<html>"), WELL]) as (port, asked):
        async with connected(port, told) as connection:
            assert await connection.view(GET) == {"well": True}

    assert len(asked) == 4
    assert b"authorization: Bearer secret-token" in asked[-1]
    first, last = told
    assert "is lost" in first
    assert "trying again" in first
    assert "again after" in last
    assert "going on with the list" in last
    assert "secret-token" not in first + last


async def test_what_changes_something_is_not_asked_again_when_it_may_have_been_done(told: list[str]) -> None:
    with answering([HUNG_UP, WELL]) as (port, asked):
        async with connected(port, told) as connection:
            with pytest.raises(StoreUnavailable, match="lost before the answer"):
                await connection.view(POST)

    assert len(asked) == 1


async def test_what_was_asked_too_often_is_asked_again_for_it_was_not_done(told: list[str]) -> None:
    put_off = problem("429 Too Many Requests", "too_many_requests", "Retry-After: 1")
    with answering([put_off, WELL]) as (port, asked):
        async with connected(port, told) as connection:
            assert await connection.view(POST) == {"well": True}

    assert len(asked) == 2


@pytest.mark.parametrize(
    "ending",
    [
        problem("503 Service Unavailable", "service_unavailable"),
        response("503 Service Unavailable", b"", "Retry-After: Sat, 01 Jan 2000 00:00:00 GMT"),
        response("504 Gateway Timeout", b"<html>"),
    ],
)
async def test_a_server_that_ends_may_have_done_what_it_was_asked_for(told: list[str], ending: bytes) -> None:
    with answering([ending, ending, WELL]) as (port, asked):
        async with connected(port, told) as connection:
            with pytest.raises(StoreUnavailable, match="lost before the answer"):
                await connection.view(POST)
            assert await connection.view(GET) == {"well": True}

    assert len(asked) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem("404 Not Found", "task_not_found"), TaskNotFound),
        (problem("429 Too Many Requests", "limit_reached"), LimitReached),
        (problem("503 Service Unavailable", "store_unavailable"), StoreUnavailable),
        (problem("401 Unauthorized", "unauthorized"), PolicyDenied),
        (problem("421 Misdirected Request", "misdirected_request"), PolicyDenied),
        (problem("404 Not Found", "not_found"), NotSupported),
        (problem("413 Content Too Large", "content_too_large"), InvalidArgument),
        (problem("500 Internal Server Error", "oops"), InternalError),
        (response("500 Internal Server Error", b"<html>"), StoreUnavailable),
        (response("302 Found", b"", "Location: http://example.com/"), StoreUnavailable),
        (response("200 OK", b"<html>"), StoreUnavailable),
        (response("200 OK", b"[]"), StoreUnavailable),
    ],
)
async def test_an_answer_that_is_no_view_is_an_error_of_its_own_kind(
    told: list[str], answer: bytes, error: type[TasksError]
) -> None:
    with answering([answer]) as (port, asked):
        async with connected(port, told) as connection:
            with pytest.raises(error) as raised:
                await connection.view(GET)

    assert type(raised.value) is error
    assert len(asked) == 1


async def test_a_server_that_is_not_there_is_given_up_after_a_while(told: list[str]) -> None:
    with answering([WELL]) as (port, _):
        pass
    async with connected(port, told, Patience(0.3, 0.3)) as connection:
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await connection.view(POST)


@pytest.mark.parametrize("token", ["two\nlines", "tökén"])
def test_a_token_that_is_none_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Connection(Address.parse("http://127.0.0.1:1"), SecretStr(token), print)

    assert token not in str(refused.value)


async def test_who_would_send_the_token_for_all_to_read_is_warned(told: list[str]) -> None:
    async with Connection(Address.parse("http://192.0.2.1:1"), SecretStr("secret-token"), told.append):
        pass
    async with Connection(Address.parse("http://192.0.2.1:1"), None, told.append):
        pass

    [warning] = told
    assert "unencrypted" in warning
