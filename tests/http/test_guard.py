"""The guard by itself, over the ASGI protocol: what no HTTP client would send, and how much is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import SecretStr
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from mcp_tasks.errors import InvalidArgument, PolicyDenied, ShareNotValid
from mcp_tasks.http import guard as guarding
from mcp_tasks.http import limits
from mcp_tasks.http.credentials import refuse_open_door
from mcp_tasks.http.guard import Guard
from mcp_tasks.http.limits import Rates, peer_of
from mcp_tasks.http.principals import Principal, principal_of
from mcp_tasks.http.refusals import Refused
from mcp_tasks.http.token import TokenFile
from mcp_tasks.service import Caller
from tests.http.server_process import TOKEN

HOST = (b"host", b"localhost:8377")
BEARER = (b"authorization", f"Bearer {TOKEN}".encode())
JSON = (b"content-type", b"application/json; charset=utf-8")


@dataclass
class Settings:
    owner: str = "anna"
    dir: Path = Path("/nowhere")
    token: SecretStr | None = field(default_factory=lambda: SecretStr(TOKEN))
    no_token: bool = False
    host: str = "127.0.0.1"
    uds: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    requests_per_second: int = 0
    max_request_bytes: int = 1_024
    oauth_issuer: str | None = None
    oauth_audience: str | None = None
    oauth_scopes: tuple[str, ...] = ()
    oauth_jwks_url: str | None = None


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Inside:
    """What lies behind the guard: notes what gets there."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.principals: list[Principal] = []
        self.rest: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        self.bodies.append(message.get("body", b""))
        if "user" in scope:
            self.principals.append(principal_of(scope["user"]))
        self.rest.append(await receive())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


async def ask(
    guard: Guard,
    *headers: tuple[bytes, bytes],
    method: str = "POST",
    path: str = "/mcp",
    body: Sequence[bytes] = (b"",),
    **scope: Any,
) -> Answer:
    messages: list[Message] = [{"type": "http.request", "body": each, "more_body": True} for each in body]
    messages[-1]["more_body"] = False
    messages.append({"type": "http.disconnect"})
    answer = Answer()

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        answer.body += message.get("body", b"")

    whole = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "client": ("127.0.0.1", 5),
        "headers": list(headers),
        **scope,
    }
    await guard(whole, receive, send)
    return answer


async def test_who_has_the_token_comes_in_as_the_user_of_the_server() -> None:
    inside = Inside()
    answer = await ask(
        Guard(inside, Settings()), HOST, BEARER, JSON, (b"content-length", b"2"), body=[b"{", b"}"]
    )
    assert answer.status == 204
    assert inside.bodies == [b"{}"]
    assert inside.principals == [Principal("anna")]
    assert inside.rest == [{"type": "http.disconnect"}]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((BEARER,), 421),
        ((HOST, HOST, BEARER), 421),
        ((HOST, (b"host", b"evil.example"), BEARER), 421),
        (((b"host", b"\xff"), BEARER), 421),
        ((HOST, BEARER, (b"origin", b"http://localhost:8377"), (b"origin", b"http://evil.example")), 403),
        ((HOST, BEARER, (b"origin", b"")), 403),
        ((HOST, BEARER, (b"sec-fetch-site", b"cross-site")), 403),
        ((HOST, BEARER, (b"sec-fetch-site", b"same-site")), 403),
        ((HOST, BEARER, (b"sec-fetch-site", b"none")), 204),
        ((HOST, BEARER, (b"sec-fetch-site", b"same-origin")), 204),
        ((HOST, BEARER, BEARER), 401),
        ((HOST, (b"authorization", b"bearer   " + TOKEN.encode())), 204),
        ((HOST, (b"authorization", b"\xff\xfe")), 401),
        ((HOST, (b"x-forwarded-host", b"localhost"), (b"authorization", b"Bearer")), 401),
        ((HOST, BEARER, (b"transfer-encoding", b"chunked")), 415),
        ((HOST, BEARER, JSON, JSON, (b"content-length", b"2")), 415),
        ((HOST, BEARER, (b"content-length", b"0")), 204),
        ((HOST, BEARER, JSON, (b"content-length", b"1025")), 413),
        ((HOST, BEARER, JSON, (b"content-length", "²".encode("latin-1"))), 204),
    ],
)  # fmt: skip
async def test_headers_that_are_odd_are_refused(
    headers: tuple[tuple[bytes, bytes], ...], status: int
) -> None:
    inside = Inside()
    answer = await ask(Guard(inside, Settings()), *headers)
    assert answer.status == status
    assert len(inside.bodies) == (status == 204)
    if status != 204:
        assert answer.headers["content-type"] == "application/problem+json"
        assert TOKEN.encode() not in answer.body


async def test_a_body_that_never_says_how_long_it_is_is_cut_off() -> None:
    inside = Inside()
    chunked = (HOST, BEARER, JSON, (b"transfer-encoding", b"chunked"))
    assert (await ask(Guard(inside, Settings()), *chunked, body=[b"x" * 600] * 2)).status == 413
    assert inside.bodies == []
    assert (await ask(Guard(inside, Settings()), *chunked, body=[b"x" * 512] * 2)).status == 204


def nothing(_: int) -> None:
    raise AssertionError("a small body takes no room")


async def test_large_bodies_have_so_much_room_together_and_give_it_back() -> None:
    guard = Guard(Inside(), Settings(max_request_bytes=100_000))
    chunked = (HOST, BEARER, JSON, (b"transfer-encoding", b"chunked"))
    large, small = [b"x" * 50_000] * 2, [b"x" * 60_000]
    with guard._room.share() as take:
        take(760_000)
        refused = await ask(guard, *chunked, body=large)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert (await ask(guard, *chunked, body=small)).status == 204
    for _ in range(20):  # each gives its room back
        assert (await ask(guard, *chunked, body=large)).status == 204


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_BODY_SECONDS", 0.02)

    async def never() -> Message:
        import anyio

        await anyio.sleep_forever()
        raise AssertionError

    with pytest.raises(Refused) as refused:
        await limits.bounded_body(never, None, 10, nothing)
    assert refused.value.refusal.status == 408


async def test_a_client_that_goes_in_the_middle_of_a_body_is_seen_to_have_gone() -> None:
    gone: Message = {"type": "http.disconnect"}

    async def receive() -> Message:
        return gone

    with pytest.raises(ClientDisconnect):
        await limits.bounded_body(receive, None, 10, nothing)


async def test_a_url_that_is_very_long_is_refused() -> None:
    answer = await ask(Guard(Inside(), Settings()), HOST, BEARER, query_string=b"x" * 20_000)
    assert answer.status == 414


@pytest.mark.parametrize("path", ["/healthz", "/.well-known/oauth-protected-resource"])
async def test_health_needs_no_token_but_a_name_that_is_known(path: str) -> None:
    inside = Inside()
    guard = Guard(inside, Settings())
    assert (await ask(guard, HOST, method="GET", path=path)).status == 204
    assert inside.principals == []
    assert (await ask(guard, (b"host", b"evil.example"), method="GET", path=path)).status == 421
    strangers = {(await ask(guard, HOST)).status for _ in range(300)}
    assert strangers == {401, 429}
    assert (await ask(guard, HOST, method="GET", path=path)).status == 204


@pytest.mark.parametrize(
    "path", ["/healthz/", "/healthz/../mcp", "//healthz", "/.well-known", "/.well-knownx/", "/HEALTHZ", ""]
)
async def test_nothing_that_only_looks_like_health_is_open(path: str) -> None:
    assert (await ask(Guard(Inside(), Settings()), HOST, method="GET", path=path)).status == 401


async def test_what_is_no_http_is_closed_and_the_lifespan_goes_through() -> None:
    inside, sent = Inside(), []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    guard = Guard(inside, Settings())
    await guard({"type": "websocket", "headers": [HOST, BEARER], "path": "/mcp"}, receive, send)
    assert inside.bodies == []
    assert sent == [{"type": "websocket.close", "code": 1008}]
    await guard({"type": "lifespan"}, receive, send)
    assert len(inside.rest) == 1


@pytest.mark.parametrize("path", ["/a\r\nX-Evil: 1", "/€", '/a"b', "/\0", "/\ufffd"])
async def test_a_path_that_no_header_takes_is_refused_as_any_other(path: str) -> None:
    settings = Settings(oauth_issuer="https://issuer.example", oauth_audience="api://tasks")
    answer = await ask(Guard(Inside(), settings), HOST, method="GET", path=path, raw_path=b"/")
    assert answer.status == 401
    told = answer.headers["www-authenticate"]
    assert told.isascii()
    assert told.isprintable()
    assert told.count('"') == 6


class Streaming:
    """Behind the guard, something that sends, does something, and sends on."""

    def __init__(self, kind: bytes, between: Callable[[], object]) -> None:
        self._kind = kind
        self._between = between

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", self._kind)]})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        self._between()
        await send({"type": "http.response.body", "body": b"two ", "more_body": True})
        await send({"type": "http.response.body", "body": b"three"})


@pytest.mark.parametrize(
    ("kind", "heard"), [(b"text/event-stream; charset=utf-8", b"one "), (b"text/plain", b"one two three")]
)
async def test_an_event_stream_ends_with_the_token_by_which_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes, heard: bytes
) -> None:
    monkeypatch.setattr(guarding, "_PROVED_S", -1.0)
    file = TokenFile(tmp_path / "state")
    settings = Settings(token=None, dir=tmp_path / "state")
    bearer = (b"authorization", f"Bearer {file.show()}".encode())
    assert (await ask(Guard(Streaming(kind, file.replace), settings), HOST, bearer)).body == heard
    bearer = (b"authorization", f"Bearer {file.replace()}".encode())
    whole = Guard(Streaming(kind, lambda: None), settings)
    assert (await ask(whole, HOST, bearer)).body == b"one two three"


async def test_pages_of_an_allowed_origin_may_ask_first_and_read_the_answer() -> None:
    inside = Inside()
    guard = Guard(inside, Settings(allowed_origins=("https://App.example.com:443/",)))
    app, other = (b"origin", b"https://app.example.com"), (b"origin", b"https://other.example.com")
    wish = (
        (b"access-control-request-method", b"POST"),
        (b"access-control-request-headers", b"authorization"),
    )
    cross = (b"sec-fetch-site", b"cross-site")
    first = await ask(guard, HOST, app, cross, *wish, method="OPTIONS")
    assert first.status == 200
    assert first.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "authorization" in first.headers["access-control-allow-headers"].lower()
    assert inside.bodies == []
    refused = await ask(guard, HOST, app, cross)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (
        401,
        "https://app.example.com",
    )
    taken = await ask(guard, HOST, app, cross, BEARER)
    assert (taken.status, taken.headers["access-control-allow-origin"]) == (204, "https://app.example.com")
    assert "Content-Range" in taken.headers["access-control-expose-headers"]
    assert (await ask(guard, HOST, other, cross, *wish, method="OPTIONS")).status == 403
    assert (await ask(Guard(inside, Settings()), HOST, app, *wish, method="OPTIONS")).status == 403


async def test_too_many_requests_of_one_client_are_refused_and_those_of_another_are_not() -> None:
    rates = Rates(2)
    for _ in range(10):  # the burst of a client that was quiet
        await rates.take("a")
    with pytest.raises(Refused, match="more than 2 requests") as refused:
        await rates.take("a")
    assert refused.value.refusal.status == 429
    assert refused.value.refusal.headers == {"Retry-After": "1"}
    await rates.take("b")


async def test_clients_are_remembered_within_bounds_and_those_that_go_on_sending_for_longest() -> None:
    rates = Rates(1, most=3)
    for _ in range(5):
        await rates.take("busy")
    for number in range(100):
        await rates.take(f"other {number}")
        with pytest.raises(Refused):
            await rates.take("busy")
    assert len(rates._buckets) == 3


async def test_without_a_limit_nothing_is_counted() -> None:
    rates = Rates(0)
    for _ in range(100):
        await rates.take("a")
    assert not rates._buckets


async def test_guesses_are_limited_and_do_not_keep_out_who_knows_the_token() -> None:
    guard = Guard(Inside(), Settings())
    wrong = (b"authorization", b"Bearer wrong")
    seen: set[int] = set()

    async def guess() -> None:
        seen.add((await ask(guard, HOST, wrong)).status)

    async with anyio.create_task_group() as group:  # one after the other they would take their time
        for _ in range(400):
            group.start_soon(guess)
    assert seen == {401, 429}
    assert (await ask(guard, HOST, BEARER)).status == 204
    assert (await ask(guard, HOST, wrong, client=("192.0.2.1", 1))).status == 401


SHARE = "mcptasks_share_one"
WITH_SHARE = (b"authorization", f"Bearer {SHARE}".encode())


async def admit(caller: Caller) -> Caller:
    """One share opens something."""
    if caller.share != SHARE:
        raise ShareNotValid
    return replace(caller, owner="anna", session="shared", named=True, role="read", via="1f")


@pytest.mark.parametrize("no_token", [False, True])
async def test_who_comes_with_a_share_is_nobody_else_also_where_everybody_comes_in(no_token: bool) -> None:
    inside = Inside()
    guard = Guard(inside, Settings(no_token=no_token, token=None if no_token else SecretStr(TOKEN)), admit)
    assert (await ask(guard, HOST, WITH_SHARE)).status == 204
    assert inside.principals == [Principal("share:1f", "read", SHARE)]
    assert SHARE not in repr(inside.principals)
    assert (await ask(guard, HOST, (b"authorization", b"Bearer mcptasks_share_other"))).status == 401
    assert (await ask(guard, HOST, (b"authorization", b"Bearer mcptasks_share_\xff"))).status == 401
    assert len(inside.principals) == 1


async def test_requests_of_a_share_are_counted_for_themselves() -> None:
    guard = Guard(Inside(), Settings(requests_per_second=2), admit)
    statuses = [(await ask(guard, HOST, WITH_SHARE)).status for _ in range(12)]
    assert statuses == [204] * 10 + [429] * 2
    assert (await ask(guard, HOST, BEARER)).status == 204


def test_the_token_of_a_share_is_no_token_of_a_server() -> None:
    with pytest.raises(InvalidArgument, match="token of a share"):
        Guard(Inside(), Settings(token=SecretStr(f"{SHARE}_and_what_makes_it_long_enough")))


async def test_requests_of_a_principal_are_limited_wherever_they_come_from() -> None:
    guard = Guard(Inside(), Settings(requests_per_second=2))
    statuses = [
        (await ask(guard, HOST, BEARER, client=(f"192.0.2.{number}", 1))).status for number in range(12)
    ]
    assert statuses == [204] * 10 + [429] * 2


@pytest.mark.parametrize(
    ("client", "peer"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("2001:db8::1", 5), "2001:db8::/64"),
        (("2001:db8::2:3", 5), "2001:db8::/64"),
        (("fe80::1%eth0", 5), "fe80::/64"),
        (None, "socket"),
        (("", 0), "unknown"),
    ],
)
def test_a_peer_is_an_address_or_a_network(client: tuple[str, int] | None, peer: str) -> None:
    assert peer_of({"client": client}) == peer


def test_a_socket_file_needs_neither_token_nor_hosts() -> None:
    refuse_open_door(Settings(host="0.0.0.0", uds=Path("/s"), no_token=True))


def test_a_subject_can_be_nobody_that_the_system_knows() -> None:
    with pytest.raises(PolicyDenied):
        principal_of(None)
    assert principal_of(Principal("oauth:root", "read").as_user("", client_id="x")) == Principal(
        "oauth:root", "read"
    )
