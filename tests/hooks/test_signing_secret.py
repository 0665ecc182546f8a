from __future__ import annotations

import base64
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.hooks import SigningSecret
from mcp_tasks.hooks.webhook import signature
from tests.hooks.receiver import Got, Receiver
from tests.service.agent import open_agent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def cli(folder: Path, command: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "mcp_tasks", command, "--dir", str(folder), *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def is_signed_with(got: Got, secret: str) -> bool:
    at = int(got.headers["webhook-timestamp"])
    return got.headers["webhook-signature"] == signature(secret, got.message_id, at, got.body)


def test_the_secret_is_made_once_and_is_long_enough_for_every_receiver(folder: Path) -> None:
    secret = SigningSecret(folder).current()
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert SigningSecret(folder).current() == secret
    assert [path.name for path in folder.iterdir()] == ["hook_secret"]


def test_all_who_make_it_at_the_same_time_agree(folder: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(lambda _: SigningSecret(folder).current(), range(32)))
    assert made == {SigningSecret(folder).current()}


def test_another_one_is_taken_at_once_by_who_uses_the_old_one(folder: Path) -> None:
    used = SigningSecret(folder)
    old = used.current()
    new = SigningSecret(folder).replace()
    assert new != old
    assert used.current() == new


def test_the_secret_of_a_process_wins_and_leaves_no_file(folder: Path) -> None:
    assert SigningSecret(folder, "mine").current() == "mine"
    assert not folder.exists()


def test_the_file_is_its_users_alone_whatever_the_umask(folder: Path) -> None:
    usual = os.umask(0)
    try:
        SigningSecret(folder).current()
    finally:
        os.umask(usual)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "hook_secret").stat().st_mode & 0o777 == 0o600


def test_a_planted_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.write_text(f"{SigningSecret(tmp_path / 'other').current()}\n")
    before = planted.read_bytes()
    folder.mkdir(mode=0o700)
    (folder / "hook_secret").symlink_to(planted)
    with pytest.raises(StoreUnavailable, match="nothing to sign webhooks with") as refused:
        SigningSecret(folder).current()
    assert "--hooks --new" in refused.value.hint
    new = SigningSecret(folder).replace()
    assert not (folder / "hook_secret").is_symlink()
    assert SigningSecret(folder).current() == new
    assert planted.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"whsec_", b"secret", b"\xff" * 60, b"x" * 9_000])
def test_what_is_no_secret_signs_nothing(folder: Path, content: bytes) -> None:
    folder.mkdir(mode=0o700)
    (folder / "hook_secret").write_bytes(content)
    with pytest.raises(StoreUnavailable):
        SigningSecret(folder).current()


def test_a_folder_that_others_may_write_to_is_no_place_for_it(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    for ask in (SigningSecret(folder).current, SigningSecret(folder).replace):
        with pytest.raises(StoreUnavailable, match="others may write"):
            ask()
    assert list(folder.iterdir()) == []


@pytest.mark.anyio
async def test_webhooks_of_all_processes_of_a_state_directory_are_signed_with_the_same_secret(
    folder: Path, receiver: Receiver
) -> None:
    async with open_agent(folder) as agent:
        await agent.run("true", hooks=[{"command": "true"}])
        assert not (folder / "hook_secret").exists()
        await agent.run("true", hooks=[{"webhook": receiver.url}])
        [got] = await receiver.has(1)
        shown = cli(folder, "token", "--hooks").stdout
        assert shown == cli(folder, "token", "--hooks").stdout
        assert is_signed_with(got, shown.strip())
        cli(folder, "run", "--wait", "--hook", receiver.url, "true")
        assert is_signed_with((await receiver.has(2))[1], shown.strip())


@pytest.mark.anyio
async def test_what_is_armed_is_signed_with_the_old_secret_and_what_comes_later_with_the_new_one(
    folder: Path, receiver: Receiver
) -> None:
    old = cli(folder, "token", "--hooks").stdout.strip()
    async with open_agent(folder) as agent:
        task_id = await agent.start("read x", interactive=True, hooks=[{"webhook": receiver.url}])
        new = cli(folder, "token", "--hooks", "--new").stdout.strip()
        assert new != old
        await agent.cancel(task_id)
        assert is_signed_with((await receiver.has(1))[0], old)
        await agent.run("true", hooks=[{"webhook": receiver.url}])
        assert is_signed_with((await receiver.has(2))[1], new)


def test_who_has_a_secret_in_the_environment_is_told_that_it_wins(folder: Path) -> None:
    shown = cli(folder, "token", "--hooks", MCP_TASKS_HOOK_SECRET="mine")
    assert shown.stdout.startswith("whsec_")
    assert "MCP_TASKS_HOOK_SECRET" in shown.stderr
    assert "mine" not in shown.stdout + shown.stderr
