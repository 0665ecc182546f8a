from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from mcp_tasks.errors import InvalidArgument, PolicyDenied, StoreUnavailable
from mcp_tasks.http.token import FileToken, GivenToken, TokenFile
from tests.http.server_process import TOKEN, HttpServer, running_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def fits(folder: Path, token: str) -> bool:
    return FileToken(folder).fits(token.encode())


def test_a_token_is_made_once_and_shown_once(folder: Path) -> None:
    file = TokenFile(folder)
    assert file.make()
    assert not file.make()
    token = file.show()
    assert fits(folder, token)
    assert len(token) > 43
    assert token not in (folder / "http_token").read_text()
    with pytest.raises(PolicyDenied, match="shown before"):
        file.show()
    assert not file.make()
    assert fits(folder, token)


def test_a_token_can_be_asked_for_before_any_server_has_made_it(folder: Path) -> None:
    assert fits(folder, TokenFile(folder).show())


def test_a_new_token_replaces_the_old_one_which_opens_nothing_then(folder: Path) -> None:
    old = TokenFile(folder).show()
    known = FileToken(folder)
    assert known.fits(old.encode())
    new = TokenFile(folder).replace()
    assert known.fits(new.encode())
    assert not known.fits(old.encode())


@pytest.mark.parametrize("wrong", ["", "x", "mcptasks_http_", "\u00e4"])
def test_what_is_not_the_token_fits_nothing(folder: Path, wrong: str) -> None:
    token = TokenFile(folder).show()
    digest = json.loads((folder / "http_token").read_text())["sha256"]
    for guess in (wrong, token + wrong + " ", token[:-1], token.upper(), digest):
        assert not fits(folder, guess)
        assert not GivenToken(TOKEN).fits(guess.encode())


def test_a_file_that_is_gone_lets_nobody_in_until_there_is_another(folder: Path) -> None:
    token = TokenFile(folder).show()
    known = FileToken(folder)
    (folder / "http_token").unlink()
    assert not known.fits(token.encode())
    assert not known.fits(b"")
    assert known.fits(TokenFile(folder).replace().encode())


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", "x", '{"sha256": ""}', '{"sha256": "0", "token": "t"}', '{"sha256": 5}', "\0" * 9_000],
)
def test_a_broken_file_lets_nobody_in_and_is_replaced_on_request_only(folder: Path, content: str) -> None:
    TokenFile(folder).make()
    known = FileToken(folder)
    (folder / "http_token").write_text(content)
    for guess in (b"", b"t", b"5"):
        assert not known.fits(guess)
    for ask in (TokenFile(folder).make, TokenFile(folder).show):
        with pytest.raises(StoreUnavailable):
            ask()
    assert known.fits(TokenFile(folder).replace().encode())


def test_a_planted_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    TokenFile(folder).make()
    planted = tmp_path / "planted"
    stolen = TokenFile(tmp_path / "other").show()
    (tmp_path / "other" / "http_token").rename(planted)
    before = planted.read_bytes()
    (folder / "http_token").unlink()
    (folder / "http_token").symlink_to(planted)
    assert not fits(folder, stolen)
    with pytest.raises(StoreUnavailable):
        TokenFile(folder).make()
    token = TokenFile(folder).replace()
    assert not (folder / "http_token").is_symlink()
    assert fits(folder, token)
    assert planted.read_bytes() == before


def test_the_file_is_its_users_alone_whatever_the_umask(folder: Path) -> None:
    usual = os.umask(0)
    try:
        TokenFile(folder).make()
    finally:
        os.umask(usual)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "http_token": 0o600,
        "http_token.lock": 0o600,
    }


def test_a_folder_that_others_may_write_to_is_no_place_for_it(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    with pytest.raises(StoreUnavailable, match="others may write"):
        TokenFile(folder).make()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "token", ["", "sh0rt-one", "x" * 19, "with a space in the middle of it", "b\u00e4h" * 10, "x" * 30 + "\n"]
)
def test_a_given_token_that_is_short_or_fits_no_header_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="MCP_TASKS_TOKEN") as refused:
        GivenToken(token)
    assert not token or token not in str(refused.value)


# -- with a real server ------------------------------------------------------------------------------


def cli(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mcp_tasks", *arguments, "--dir", str(folder)],
        env={**os.environ, "XDG_CONFIG_HOME": str(folder.parent), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def status(server: HttpServer, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return httpx2.post(f"{server.base}/mcp", headers=headers, content="{}").status_code


@pytest.mark.parametrize("store", ["json", "memory"])
def test_a_server_makes_the_token_and_takes_another_at_once(folder: Path, store: str) -> None:
    where = ("--store", store)
    with running_server(folder, *where, MCP_TASKS_TOKEN="") as server:
        assert status(server, TOKEN) == 401
        shown = cli(folder, "token", *where)
        first = shown.stdout.strip()
        assert shown.stdout == f"{first}\n"
        assert status(server, first) not in (401, 403)
        again = cli(folder, "token", *where)
        assert (again.returncode, again.stdout) == (2, "")
        assert "--new" in again.stderr
        second = cli(folder, "token", "--new", *where).stdout.strip()
        assert status(server, second) not in (401, 403)
        assert status(server, first) == 401
        log = server.log.read_text()
        kept = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for secret in (first, second):
        assert secret not in log
        assert not any(secret.encode() in content for content in kept)
    with running_server(folder, *where, MCP_TASKS_TOKEN="") as server:
        assert status(server, second) not in (401, 403)


def test_the_token_of_the_environment_wins_and_no_command_inherits_it(folder: Path) -> None:
    with running_server(folder) as server:
        assert not (folder / "http_token").exists()
        said = server.log.read_text()
        assert "the token of this server is the one given in MCP_TASKS_TOKEN" in said
        assert TOKEN not in said
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = httpx2.post(
            f"{server.base}/api/tasks",
            headers=headers,
            json={"command": "env", "wait_ms": 20_000},
            timeout=30,
        )
        assert answer.status_code == 201
        assert "PATH=" in answer.text
        assert TOKEN not in answer.text
        assert "MCP_TASKS_TOKEN" not in answer.text
        noted = cli(folder, "token", MCP_TASKS_TOKEN=TOKEN)
        assert "takes that one instead" in noted.stderr
        assert TOKEN not in noted.stdout + noted.stderr


def test_who_comes_through_a_share_is_shown_no_token(folder: Path) -> None:
    refused = cli(folder, "token", MCP_TASKS_SHARE="mcptasks_share_x.y")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert not (folder / "http_token").exists()


@pytest.mark.parametrize(
    ("options", "env", "word"),
    [
        (("--host", "0.0.0.0"), {}, "--allowed-host"),
        (("--host", "0.0.0.0", "--no-token", "--allowed-host", "x"), {}, "no_token"),
        (("--host", "::", "--no-token"), {}, "no_token"),
        (("--host", ""), {}, "--allowed-host"),
        (("--allowed-host", "*"), {}, "host name"),
        (("--allowed-origin", "*"), {}, "origin"),
        ((), {"MCP_TASKS_TOKEN": "short"}, "MCP_TASKS_TOKEN is too short"),
        (("--oauth-issuer", "https://issuer.example"), {}, "oauth_audience"),
        (("--oauth-audience", "x"), {}, "oauth_issuer"),
        (("--oauth-issuer", "http://issuer.example", "--oauth-audience", "x"), {}, "https"),
        (("--oauth-issuer", "https://i.example", "--oauth-audience", "x", "--no-token"), {}, "no_token"),
    ],
)
def test_an_open_door_is_refused_before_anything_listens(
    folder: Path, options: tuple[str, ...], env: dict[str, str], word: str
) -> None:
    refused = cli(folder, "serve", "--transport", "http", "--port", "0", *options, **env)
    assert refused.returncode == 2, refused.stderr
    assert "listening" not in refused.stderr
    assert "Traceback" not in refused.stderr
    assert word in refused.stderr
