from __future__ import annotations

import pytest

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.http.addresses import Authority, Names, Origin, is_loopback

HERE = Names((), (), loopback=True)
NAMED = Names(
    ("tasks.example.com", "192.0.2.7:8377", "[2001:DB8::7]"), ("https://app.example.com",), loopback=False
)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8377",
        "localhost:1",
        "LOCALHOST",
        "localhost.",
        "[::1]:8377",
        "[0::1]",
        "127.8.9.1",
    ],
)
def test_names_of_this_machine_are_known_on_loopback_with_any_port(host: str) -> None:
    assert HERE.host(host) is not None
    assert NAMED.host(host) is None


@pytest.mark.parametrize(
    "host",
    [
        "", " ", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:8377",
        "user@localhost", "localhost/", "localhost:80:80", "localhost, evil.example",
        "[::1", "::1", "[evil]", "[::1]evil", "127.1", "2130706433", "0x7f.1", "0.0.0.0", "localhost:",
        "localhost x",
        "localhost\t", "http://localhost", "-", "löcalhost", "[::ffff:8.8.8.8]",
    ],
)  # fmt: skip
def test_nothing_else_is(host: str) -> None:
    assert HERE.host(host) is None


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("tasks.example.com", True),
        ("Tasks.Example.com:443", True),
        ("tasks.example.com.", True),
        ("192.0.2.7:8377", True),
        ("192.0.2.7:80", False),
        ("192.0.2.7", False),
        ("[2001:db8:0::7]:99", True),
        ("other.example.com", False),
        ("xtasks.example.com", False),
        ("tasks.example.com.evil.example", False),
    ],
)
def test_a_given_name_goes_for_any_port_and_one_with_a_port_for_that(host: str, known: bool) -> None:
    assert (NAMED.host(host) is not None) is known


@pytest.mark.parametrize(
    ("origin", "host", "may"),
    [
        ("http://127.0.0.1:8377", "127.0.0.1:8377", True),
        ("http://127.0.0.1:8378", "127.0.0.1:8377", False),
        ("http://localhost:8377", "127.0.0.1:8377", False),
        ("https://tasks.example.com", "tasks.example.com", True),
        ("https://tasks.example.com:443", "tasks.example.com", True),
        ("https://tasks.example.com", "tasks.example.com:8377", False),
        ("ftp://tasks.example.com", "tasks.example.com", False),
        ("https://app.example.com", "tasks.example.com", True),
        ("https://APP.example.com:443", "tasks.example.com", True),
        ("http://app.example.com", "tasks.example.com", False),
        ("https://app.example.com.evil.example", "tasks.example.com", False),
        ("null", "tasks.example.com", False),
        ("", "tasks.example.com", False),
        ("https://", "tasks.example.com", False),
        ("https://app.example.com/x", "tasks.example.com", False),
    ],
)
def test_pages_from_here_and_of_given_origins_may_call(origin: str, host: str, may: bool) -> None:
    authority = Authority.read(host)
    assert authority is not None
    assert NAMED.origin(origin, authority) is may


@pytest.mark.parametrize("host", ["*", "https://tasks.example.com", "a b", "", "[x]"])
def test_what_is_no_name_is_refused_before_anything_is_served(host: str) -> None:
    with pytest.raises(InvalidArgument, match="no host name"):
        Names((host,), (), loopback=True)


@pytest.mark.parametrize("origin", ["*", "app.example.com", "https://app.example.com/page", "null"])
def test_what_is_no_origin_is_refused_before_anything_is_served(origin: str) -> None:
    with pytest.raises(InvalidArgument, match="no origin"):
        Names((), (origin,), loopback=True)


def test_an_origin_may_end_in_a_slash_where_it_is_configured() -> None:
    app = Origin.read("https://app.example.com")
    assert app is not None
    assert Names((), ("https://app.example.com/",), loopback=True).origin(
        "https://app.example.com", Authority("localhost", 1)
    )


@pytest.mark.parametrize(
    ("name", "is_it"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("", False), ("::", False)],
)
def test_loopback_is_told_from_the_rest(name: str, is_it: bool) -> None:
    assert is_loopback(name) is is_it
