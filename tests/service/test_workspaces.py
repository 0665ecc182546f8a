"""The workspace of a session: what its commands are given where they say nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_tasks.errors import InvalidArgument, KeyConflict, LimitReached
from tests.service.agent import Agent, open_agent


async def test_commands_run_in_the_workspace_unless_they_say_otherwise(agent: Agent, tmp_path: Path) -> None:
    inner = tmp_path / "work" / "inner"
    inner.mkdir(parents=True)
    await agent.update(cwd=str(inner.parent), env={"WHERE": "workspace", "KEPT": "yes"})
    view = await agent.run("pwd; echo $WHERE $KEPT")
    assert view["stdout"] == f"{inner.parent}\nworkspace yes\n"
    view = await agent.run("pwd; echo $WHERE $KEPT", cwd="inner", env={"WHERE": "here"})
    assert view["stdout"] == f"{inner}\nhere yes\n"
    view = await agent.run("echo ${WHERE-unset}", env={"WHERE": None}, cwd=str(tmp_path))
    assert view["stdout"] == "unset\n"
    listed = await agent.list(cwd="inner")
    assert [task["cwd"] for task in listed["tasks"]] == [str(inner)]


async def test_a_workspace_is_its_sessions_own(agent: Agent, tmp_path: Path) -> None:
    await agent.of("a").update(env={"ONLY": "a"})
    assert (await agent.of("b").run("echo ${ONLY-nothing}"))["stdout"] == "nothing\n"
    assert (await agent.of("a").run("echo ${ONLY-nothing}"))["stdout"] == "a\n"


async def test_a_change_counts_for_the_next_command_on_every_server(agent: Agent, tmp_path: Path) -> None:
    async with open_agent(tmp_path / "state") as other:
        for value in ("one", "two"):
            await agent.update(env={"VALUE": value})
            assert (await other.run("echo $VALUE"))["stdout"] == f"{value}\n"


async def test_the_shell_of_the_workspace_runs_strings_and_no_lists(agent: Agent, tmp_path: Path) -> None:
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\necho "special: $2"\n')
    shell.chmod(0o700)
    await agent.update(shell=str(shell))
    assert (await agent.run("something"))["stdout"] == "special: something\n"
    assert (await agent.run(["echo", "plain"]))["stdout"] == "plain\n"
    assert (await agent.run("echo usual", shell="/bin/sh"))["stdout"] == "usual\n"


async def test_a_workspace_folder_that_is_gone_is_named_as_such(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    await agent.update(cwd=str(folder))
    folder.rmdir()
    with pytest.raises(InvalidArgument, match="of the session's workspace is no directory any more"):
        await agent.run("true")
    assert (await agent.run("true", cwd=str(tmp_path)))["state"] == "completed"


async def test_values_are_sealed_at_rest_and_never_shown(agent: Agent, tmp_path: Path) -> None:
    secret = "correct-horse-battery"
    view = await agent.update(env={"DB_PASSWORD": secret})
    assert view["workspace"]["env"] == ["DB_PASSWORD"]
    told = await agent.run(f"test $DB_PASSWORD = {secret}")
    assert told["state"] == "completed"
    records = [await agent.info(), await agent.list(), await agent.result(told["task_id"])]
    assert secret not in str(records)
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if secret.encode() in path.read_bytes()] == []


async def test_a_key_stands_for_the_request_whatever_the_workspace_is(agent: Agent, tmp_path: Path) -> None:
    first = await agent.run("pwd", key="k", cwd=str(tmp_path))
    await agent.update(cwd=str(tmp_path), env={"A": "1"})
    again = await agent.run("pwd", key="k", cwd=str(tmp_path))
    assert (again["task_id"], again.get("reused")) == (first["task_id"], True)
    with pytest.raises(KeyConflict):
        await agent.run("pwd -P", key="k", cwd=str(tmp_path))


async def test_a_relative_folder_of_an_update_starts_from_the_workspace(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    await agent.update(cwd=str(tmp_path / "a"))
    view = await agent.update(cwd="b")
    assert view["workspace"]["cwd"] == str(tmp_path / "a" / "b")


async def test_folder_and_shell_can_be_taken_back(agent: Agent, tmp_path: Path) -> None:
    usual = (await agent.run("pwd"))["stdout"]
    await agent.update(cwd=str(tmp_path), shell="/bin/sh", env={"A": "1"})
    view = await agent.update(cwd="", shell="")
    assert view["workspace"] == {"env": ["A"]}
    assert (await agent.run("pwd"))["stdout"] == usual


async def test_a_workspace_does_not_grow_without_end(agent: Agent) -> None:
    await agent.update(preferences={"a": "x" * 60_000}, env={"A": "x" * 500_000})
    for options in (
        {"preferences": {"b": "x" * 10_000}},
        {"env": {"B": "x" * 500_000}},
        {"env": {f"N{number}": "" for number in range(1_000)}},
    ):
        with pytest.raises(LimitReached):
            await agent.update(**options)
    view = await agent.update(preferences={"a": None, "b": "x" * 60_000}, env={"A": None, "B": "x"})
    assert list(view["workspace"]["preferences"]) == ["b"]


async def test_what_is_kept_of_a_session_shows_no_value_of_its_environment(agent: Agent) -> None:
    await agent.update(env={"DB_PASSWORD": "one-value"})
    view = await agent.update(
        title="one-value", env={"API_TOKEN": "other-value"}, preferences={"x": "other-value one-value"}
    )
    assert view["title"] == "[redacted]"
    assert view["workspace"]["preferences"] == {"x": "[redacted] [redacted]"}


async def test_many_workspaces_are_not_all_kept_in_memory(agent: Agent) -> None:
    workspaces = agent.service._desk.workspaces
    for number in range(300):
        await agent.of(f"s{number}").update(shell="/bin/sh")
        workspaces.of(agent.of(f"s{number}").caller.session_key)
    assert len(workspaces._known) <= 256


async def test_a_shell_that_is_not_there_or_no_program_is_refused(agent: Agent, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program")
    for wrong in ("/no/such/shell", "no-such-shell", str(text), str(tmp_path)):
        with pytest.raises(InvalidArgument, match="is not there, or not executable"):
            await agent.update(shell=wrong)
    assert (await agent.update(shell="sh"))["workspace"]["shell"] == "sh"
    assert (await agent.run("echo by name"))["stdout"] == "by name\n"


async def test_a_shell_of_the_workspace_that_is_gone_is_named(agent: Agent, tmp_path: Path) -> None:
    shell = tmp_path / "gone"
    shell.symlink_to("/bin/sh")
    await agent.update(shell=str(shell))
    shell.unlink()
    with pytest.raises(InvalidArgument, match=f"shell '{shell}' of the session's workspace"):
        await agent.run("true")
    assert (await agent.run("true", shell="/bin/sh"))["state"] == "completed"
    assert (await agent.run(["true"]))["state"] == "completed"


@pytest.mark.parametrize("shell", ["/bin/ghp_" + "a1B2" * 9, "/bin/hunter2-shell"])
async def test_a_shell_that_holds_a_secret_is_refused(agent: Agent, shell: str) -> None:
    with pytest.raises(InvalidArgument, match="shell holds a secret"):
        await agent.update(shell=shell, env={"A_TOKEN": "hunter2-shell"})


async def test_a_wrong_folder_is_repeated_as_it_was_given(agent: Agent) -> None:
    with pytest.raises(InvalidArgument, match=r"cwd 'a//b/\.\./c' is not a directory"):
        await agent.update(cwd="a//b/../c")
