from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

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
from mcp_tasks.remote import Patience, open_remote
from mcp_tasks.remote.address import Address
from mcp_tasks.remote.attempts import Ask
from mcp_tasks.remote.connection import Connection
from mcp_tasks.requests import CancelTask, ListTasks
from mcp_tasks.service import Caller
from tests.remote.certificates import self_signed
from tests.remote.faults import answering, response

GET = Ask("GET", "/tasks", is_repeatable=True, what="the list")
POST = Ask("POST", "/tasks/1/input", body={"text": "yes"})
ME = Caller("me", "default", named=False)
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
    assert "does not answer" in first
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


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_who_only_hangs_up_is_no_server_that_is_started_again(told: list[str], method: str) -> None:
    with answering([HUNG_UP]) as (port, _):
        async with connected(port, told, Patience(0.3, 60.0)) as connection:
            with pytest.raises(StoreUnavailable, match="does not answer") as given_up:
                await connection.view(Ask(method, "/tasks", is_repeatable=True))

    assert ("whether it was done is not known" in given_up.value.hint) == (method == "POST")


async def test_a_server_that_has_once_answered_is_waited_for_longer(told: list[str]) -> None:
    full = problem("503 Service Unavailable", "service_unavailable")
    for first in (WELL, full):
        with answering([first, *[HUNG_UP] * 6, WELL]) as (port, asked):
            async with connected(port, told, Patience(0.0, 30.0)) as connection:
                assert await connection.view(GET) == {"well": True}
                while len(asked) < 8:
                    assert await connection.view(GET) == {"well": True}


async def test_an_answer_that_was_garbled_on_the_way_is_asked_for_again(told: list[str]) -> None:
    garbled = response("200 OK", b"nonsense", "Content-Encoding: gzip")
    with answering([garbled, b"SSH-2.0-nonsense\r\n", WELL]) as (port, asked):
        async with connected(port, told) as connection:
            assert await connection.view(GET) == {"well": True}

    assert len(asked) == 3


async def test_an_answer_that_goes_on_and_on_is_not_kept(told: list[str]) -> None:
    with answering([response("200 OK", bytes(65 * 2**20))]) as (port, _):
        async with connected(port, told) as connection:
            with pytest.raises(StoreUnavailable, match="does not answer as mcp-tasks does"):
                await connection.view(GET)
            # The whole of an output that a range was asked of is not even read.
            answer = await connection.answer(Ask("GET", "/", headers={"range": "bytes=0-9"}))

    assert (answer.status, answer.content) == (200, b"")


async def test_a_certificate_is_trusted_where_that_is_said(
    told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path)
    with answering([WELL], certificate.context) as (port, asked):
        address = Address.parse(f"https://localhost:{port}")
        async with Connection(address, None, told.append) as connection:
            with pytest.raises(StoreUnavailable, match="not trusted: self-signed") as refused:
                await connection.view(GET)
        assert "SSL_CERT_FILE" in refused.value.hint
        assert not asked
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
        async with Connection(address, None, told.append) as connection:
            assert await connection.view(GET) == {"well": True}
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing"))
        with pytest.raises(InvalidArgument, match="certificates to trust"):
            Connection(address, None, told.append)
    assert not told


async def test_what_has_no_tls_is_told_so(told: list[str]) -> None:
    with answering([WELL]) as (port, _):
        async with Connection(
            Address.parse(f"https://127.0.0.1:{port}"), None, told.append, Patience(0.0, 0.0)
        ) as connection:
            with pytest.raises(StoreUnavailable, match=r"TLS: wrong version number"):
                await connection.view(GET)


def test_a_proxy_that_cannot_be_used_is_told_without_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "quic://user:password@127.0.0.1:1")
    with pytest.raises(InvalidArgument, match="the proxy that the environment names") as refused:
        Connection(Address.parse("http://192.0.2.1"), None, print)

    assert "password" not in str(refused.value)
    Connection(Address.parse("http://127.0.0.1"), None, print)  # what is near is asked without one


async def test_json_of_another_kind_of_server_is_no_answer(told: list[str]) -> None:
    with answering([response("200 OK", b'{"status": "fine"}')]) as (port, _):
        where = f"http://127.0.0.1:{port}"
        async with open_remote(where, token=None, tell=told.append) as service:
            for asking in (
                service.server_info(ME),
                service.list_tasks(ME, ListTasks()),
                service.resolve_prefix(ME, "01"),
                service.resolve_plan_prefix(ME, "01"),
                service.cancel_task(ME, CancelTask(task_id="01")),
                service.cancel_task(ME, CancelTask(task_ids=("01",))),
            ):
                with pytest.raises(StoreUnavailable, match="does not answer as mcp-tasks does"):
                    await asking


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
