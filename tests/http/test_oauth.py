from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.http import oauth
from mcp_tasks.http.oauth import IssuerAway, IssuerTokens
from mcp_tasks.service.access import TOKEN_PREFIX
from tests.http.issuer import AUDIENCE, Issuer, running_issuer
from tests.http.server_process import TOKEN, HttpServer, running_server

READ, WRITE = "mcp-tasks:read", "mcp-tasks:write"


@pytest.fixture(scope="module")
def running() -> Iterator[Issuer]:
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(running: Issuer) -> Iterator[Issuer]:
    keys, documents = dict(running.keys), dict(running.documents)
    yield running
    running.keys, running.documents, running.is_broken = keys, documents, False
    running.asked.clear()


def tokens_of(issuer: Issuer) -> IssuerTokens:
    return IssuerTokens(issuer.url, AUDIENCE)


@pytest.mark.parametrize("key", ["rsa", "ec"])
async def test_a_token_of_the_issuer_says_who_it_is_and_what_he_may(issuer: Issuer, key: str) -> None:
    access = await tokens_of(issuer).verify_token(issuer.token(READ, WRITE, key=key))
    assert access is not None
    assert (access.subject, access.scopes, access.client_id) == ("anna", [READ, WRITE], "app")
    assert access.claims == {"iss": issuer.url}
    assert access.token == ""


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": None}, []),
        ({"scope": None, "scp": [READ, 5]}, [READ]),
        ({"scope": None, "scp": f"{READ} x"}, [READ, "x"]),
        ({"scope": 5}, []),
        ({"client_id": None, "azp": 5}, []),
    ],
)
async def test_scopes_are_read_as_issuers_write_them(
    issuer: Issuer, claims: dict[str, Any], scopes: list[str]
) -> None:
    access = await tokens_of(issuer).verify_token(issuer.token(**claims))
    assert access is not None
    assert access.scopes == scopes


async def test_one_of_several_audiences_is_enough(issuer: Issuer) -> None:
    assert await tokens_of(issuer).verify_token(issuer.token(READ, aud=["x", AUDIENCE])) is not None


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1_000_000_000},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": 9_999_999_999},
        {"aud": "http://127.0.0.1/other"},
        {"aud": None},
        {"iss": "http://127.0.0.1:1"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": "a\nb"},
    ],
    ids=str,
)
async def test_a_token_that_is_over_or_for_others_or_from_others_is_nothing(
    issuer: Issuer, claims: dict[str, Any]
) -> None:
    subject = claims.pop("sub", "anna")
    token = issuer.token(READ, subject=subject, **claims)
    assert await tokens_of(issuer).verify_token(token) is None


async def test_signatures_that_anybody_could_make_are_nothing(issuer: Issuer) -> None:
    tokens = tokens_of(issuer)
    rsa_key, ec_key = issuer.keys["rsa"], issuer.keys["ec"]
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    others = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    good = issuer.token(READ)
    head, body, signature = good.split(".")
    forged = [
        issuer.token(READ, sign_with="", algorithm="none"),
        issuer.token(READ, sign_with="x" * 32, algorithm="HS256"),
        f"{_part({'alg': 'HS256', 'kid': 'rsa'})}.{body}.{_hmac(public, body)}",
        f"{_part({'alg': 'none', 'kid': 'rsa'})}.{body}.",
        issuer.token(READ, sign_with=others[0]),
        issuer.token(READ, sign_with=others[1], header={"kid": "ec"}),
        issuer.token(READ, sign_with=ec_key, header={"kid": "rsa"}),
        issuer.token(READ, sign_with=rsa_key, header={"kid": "ec"}),
        issuer.token(READ, algorithm="RS512"),
        issuer.token(READ, header={}),
        issuer.token(READ, header={"kid": "none"}),
        issuer.token(READ, header={"kid": "x", "jku": f"{issuer.url}/evil"}, sign_with=others[0]),
        issuer.token(READ, header={"kid": "x", "jwk": _jwk(others[0])}, sign_with=others[0]),
        f"{head}.{_part({**_claims(good), 'sub': 'root'})}.{signature}",
        f"{head}.{body}.", f"{head}.{body}", "x", "", "..", good + "x", "\ud800", "." * 10_000,
    ]  # fmt: skip
    for each in forged:
        assert await tokens.verify_token(each) is None, each
    assert "/evil" not in issuer.asked
    assert await tokens.verify_token(good) is not None


def _part(fields: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


def _claims(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def _jwk(key: rsa.RSAPrivateKey) -> dict[str, Any]:
    return dict(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True))


def _hmac(secret: bytes, body: str) -> str:
    signed = f"{_part({'alg': 'HS256', 'kid': 'rsa'})}.{body}".encode()
    return base64.urlsafe_b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode().rstrip("=")


async def test_the_issuer_is_asked_once_and_not_for_tokens_that_name_another(issuer: Issuer) -> None:
    tokens = tokens_of(issuer)
    assert await tokens.verify_token(issuer.token(READ, iss="http://127.0.0.1:1")) is None
    assert issuer.asked == []
    for _ in range(5):
        assert await tokens.verify_token(issuer.token(READ)) is not None
        assert await tokens.verify_token(issuer.token(READ, header={"kid": "unknown"})) is None
    assert issuer.asked == ["/.well-known/oauth-authorization-server", "/jwks"]


async def test_a_new_key_is_found_and_a_withdrawn_one_forgotten(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oauth, "_UNKNOWN_KEY_SECONDS", 0)
    monkeypatch.setattr(oauth, "_KEYS_SECONDS", 0.001)
    tokens = tokens_of(issuer)
    old = issuer.token(READ)
    assert await tokens.verify_token(old) is not None
    issuer.keys["next"] = issuer.keys.pop("rsa")
    assert await tokens.verify_token(issuer.token(READ, key="next")) is not None
    assert await tokens.verify_token(old) is None


async def test_an_issuer_that_is_away_is_not_asked_again_at_once_and_then_it_is(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tokens_of(issuer)
    issuer.is_broken = True
    for _ in range(3):
        with pytest.raises(IssuerAway):
            await tokens.verify_token(issuer.token(READ))
    assert len(issuer.asked) == 2  # each place of its metadata, once
    issuer.is_broken = False
    tokens._away_until = 0
    assert await tokens.verify_token(issuer.token(READ)) is not None


@pytest.mark.parametrize(
    "told",
    [
        {"issuer": "http://127.0.0.1:1", "jwks_uri": "http://127.0.0.1:1/jwks"},
        {"jwks_uri": "http://127.0.0.1:1/jwks"},
        {"issuer": "{url}"},
        {"issuer": "{url}", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "{url}", "jwks_uri": "http://keys.example/jwks"},
        {"issuer": "{url}", "jwks_uri": "http://[::1/jwks"},
        {"issuer": "{url}", "jwks_uri": "{url}/nothing"},
        ["issuer"],
    ],
    ids=str,
)
async def test_metadata_of_another_or_without_safe_keys_are_not_gone_by(issuer: Issuer, told: Any) -> None:
    filled = json.loads(json.dumps(told).replace("{url}", issuer.url))
    issuer.documents["/.well-known/oauth-authorization-server"] = filled
    with pytest.raises(IssuerAway):
        await tokens_of(issuer).verify_token(issuer.token(READ))


async def test_an_issuer_with_a_path_is_found_where_openid_looks(issuer: Issuer) -> None:
    url = f"{issuer.url}/realms/one"
    issuer.documents["/realms/one/.well-known/openid-configuration"] = {
        "issuer": url,
        "jwks_uri": f"{issuer.url}/jwks",
    }
    assert await IssuerTokens(url, AUDIENCE).verify_token(issuer.token(READ, iss=url)) is not None
    assert issuer.asked[0] == "/.well-known/oauth-authorization-server/realms/one"


async def test_keys_are_had_from_where_the_settings_say(issuer: Issuer) -> None:
    tokens = IssuerTokens(issuer.url, AUDIENCE, f"{issuer.url}/jwks")
    assert await tokens.verify_token(issuer.token(READ)) is not None
    assert issuer.asked == ["/jwks"]


@pytest.mark.parametrize(
    "url", ["http://issuer.example", "issuer.example", "file:///x", "https://", "http://[::1"]
)
def test_an_issuer_that_is_not_safe_to_ask_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument):
        IssuerTokens(url, AUDIENCE)
    with pytest.raises(InvalidArgument):
        IssuerTokens("https://issuer.example", AUDIENCE, url)


# -- with a real server ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(running: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    state = tmp_path_factory.mktemp("oauth") / "state"
    options = ("--oauth-issuer", running.url, "--oauth-audience", AUDIENCE, "--oauth-scopes", "openid")
    with running_server(state, *options) as started:
        yield started
        assert "Traceback" not in started.log.read_text()


def ask(server: HttpServer, method: str, path: str, token: str | None, **options: Any) -> httpx2.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx2.request(method, f"{server.base}{path}", headers=headers, timeout=30, **options)


def start(server: HttpServer, token: str, command: str = "true") -> httpx2.Response:
    return ask(server, "POST", "/api/tasks", token, json={"command": command, "wait_ms": 20_000})


def test_a_subject_has_tasks_of_his_own_that_nobody_else_sees(server: HttpServer, issuer: Issuer) -> None:
    anna = issuer.token(READ, WRITE, "openid")
    boris = issuer.token(WRITE, "openid", subject="boris", key="ec")
    root = issuer.token(WRITE, "openid", subject="root")
    started = start(server, anna)
    assert started.status_code == 201
    task = started.json()["task_id"]
    assert ask(server, "GET", f"/api/tasks/{task}", anna).status_code == 200
    for other in (boris, root, TOKEN):
        assert ask(server, "GET", f"/api/tasks/{task}", other).status_code == 404
        assert ask(server, "GET", "/api/tasks", other).json()["tasks"] == []
    assert [each["task_id"] for each in ask(server, "GET", "/api/tasks", anna).json()["tasks"]] == [task]


def test_a_subject_is_told_nothing_of_the_folder_that_the_server_was_started_in(
    server: HttpServer, issuer: Issuer
) -> None:
    reader, writer = issuer.token(READ, "openid"), issuer.token(WRITE, "openid")
    context = "/api/sessions/homeless/context"
    refresh = f"{context}/refresh"
    told = [
        ask(server, "POST", refresh, reader, json={}),
        ask(server, "GET", context, reader),
        ask(server, "GET", f"{context}?cwd=/root", reader),
        ask(server, "POST", refresh, writer, json={}),
        ask(server, "GET", f"{context}?cwd=tests", writer),
        ask(server, "POST", "/api/tasks", writer, json={"command": "true", "cwd": "gone/../gone"}),
        ask(server, "PATCH", "/api/sessions/homeless", writer, json={"cwd": "gone"}),
    ]
    assert [each.status_code for each in told] == [403, 403, 403, 400, 400, 400, 400]
    assert all(os.getcwd() not in each.text and "this share" not in each.text for each in told)
    assert "cwd 'gone/../gone' is not a directory" in told[5].json()["detail"]
    assert ask(server, "POST", refresh, TOKEN, json={}).json()["cwd"] == os.getcwd()


def test_who_may_read_can_start_and_change_nothing(server: HttpServer, issuer: Issuer) -> None:
    reader, writer = issuer.token(READ, "openid"), issuer.token(WRITE, "openid")
    assert ask(server, "GET", "/api/tasks", reader).status_code == 200
    refused = start(server, reader)
    assert refused.status_code == 403
    assert refused.json()["code"] == "policy_denied"
    assert "the token lets you read" in refused.json()["detail"]
    shared = ask(server, "PATCH", "/api/sessions/shared", writer, json={"share": "write"})
    assert shared.status_code == 200, shared.text
    share = next(word for word in _texts(shared.json()) if word.startswith(TOKEN_PREFIX))
    through = {"Authorization": f"Bearer {reader}", "Mcp-Tasks-Share": share}
    again = httpx2.post(f"{server.base}/api/tasks", headers=through, json={"command": "true"}, timeout=30)
    assert again.status_code == 403


def _texts(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for each in value.values() for text in _texts(each)]
        case list():
            return [text for each in value for text in _texts(each)]
        case _:
            return []


@pytest.mark.parametrize("scopes", [(), ("openid",), (READ,), (WRITE,), ("mcp-tasks", "openid")])
def test_a_token_without_the_scopes_does_nothing_here(
    server: HttpServer, issuer: Issuer, scopes: tuple[str, ...]
) -> None:
    refused = ask(server, "GET", "/api/tasks", issuer.token(*scopes))
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]
    assert f'scope="openid {READ}"' in refused.headers["WWW-Authenticate"]


@pytest.mark.parametrize("path", ["/mcp", "/sse", "/api/tasks", "/messages/", "/metrics", "/nothing"])
def test_without_a_token_there_is_nothing_but_where_to_get_one(
    server: HttpServer, issuer: Issuer, path: str
) -> None:
    for token in (None, "x", issuer.token(READ, aud="other")):
        refused = ask(server, "GET", path, token)
        assert refused.status_code == 401
        challenge = refused.headers["WWW-Authenticate"]
        assert challenge.startswith("Bearer ")
        assert 'resource_metadata="http://127.0.0.1/.well-known/oauth-protected-resource/mcp"' in challenge
        assert f'scope="{READ} {WRITE}"' in challenge
        assert ('error="invalid_token"' in challenge) is (token is not None)
        assert refused.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["", "/mcp", "/sse", "/api"])
def test_the_metadata_say_who_gives_tokens_and_need_none(
    server: HttpServer, issuer: Issuer, path: str
) -> None:
    told = ask(server, "GET", f"/.well-known/oauth-protected-resource{path}", None)
    assert told.status_code == 200
    assert told.json() == {
        "resource": AUDIENCE,
        "authorization_servers": [issuer.url],
        "scopes_supported": [READ, WRITE, "openid"],
        "bearer_methods_supported": ["header"],
        "resource_name": "mcp_tasks",
    }
    assert ask(server, "GET", f"/.well-known/oauth-protected-resource{path}x/../y", None).status_code in (
        200,
        404,
    )
    assert ask(server, "GET", "/.well-known/other", None).status_code == 404
    assert ask(server, "GET", "/.well-known/oauth-protected-resourcex", None).status_code == 404


def test_while_the_issuer_is_away_the_built_in_token_goes_on_working(issuer: Issuer, tmp_path: Path) -> None:
    issuer.is_broken = True
    options = ("--oauth-issuer", issuer.url, "--oauth-audience", "urn:tasks")
    with running_server(tmp_path / "state", *options) as server:
        away = ask(server, "GET", "/api/tasks", issuer.token(READ))
        assert away.status_code == 503
        assert away.headers["Retry-After"] == "5"
        assert ask(server, "GET", "/api/tasks", TOKEN).status_code == 200
        told = ask(server, "GET", "/.well-known/oauth-protected-resource/mcp", None).json()
        assert told["resource"] == f"{server.base}/mcp"  # an audience that is no URL: as it is addressed
        challenge = ask(server, "GET", "/sse", None).headers["WWW-Authenticate"]
        assert f'resource_metadata="{server.base}/.well-known/oauth-protected-resource/sse"' in challenge
