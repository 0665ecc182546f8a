from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mcp_tasks.cli import places
from mcp_tasks.hooks import FileOutbox
from mcp_tasks.hooks.armed import Armed
from mcp_tasks.models import Hook, TaskKey
from tests.cli.conftest import CommandLine


def ended(cli: CommandLine, *arguments: str) -> str:
    """The id of a task that is over."""
    task = cli.run(*arguments)
    cli("wait", task)
    return task


def of_store(cli: CommandLine, *arguments: str, code: int = 0) -> dict[str, object]:
    answer = json.loads(cli("store", *arguments, "--json", code=code).stdout)
    assert isinstance(answer, dict)
    return answer


def test_a_store_is_migrated_there_and_back_and_used_where_it_is(cli: CommandLine, tmp_path: Path) -> None:
    task = ended(cli, "--", "echo", "hello")
    state, other, back = (str(tmp_path / name) for name in ("state", "other", "back"))

    done = of_store(cli, "migrate", state, other)

    assert (done["from"], done["to"], done["sessions"], done["tasks"]) == ("json", "sqlite", 1, 1)
    assert done["differences"] == []
    assert cli.text("logs", "--dir", other, "--store", "sqlite", task) == "hello\n"
    assert of_store(cli, "migrate", state, other)["resumed"] is True
    assert "json" in cli.text("store", "migrate", other, back)
    assert cli.text("logs", "--dir", back, task) == "hello\n"


def test_hooks_that_are_still_to_be_told_stay_with_what_is_copied(cli: CommandLine, tmp_path: Path) -> None:
    task = ended(cli, "--", "true")
    state, other = tmp_path / "state", tmp_path / "other"
    outbox = FileOutbox(state / "hooks")
    with outbox.arming():
        outbox.write(Armed(TaskKey("owner", "default", task), 0, (Hook("desktop"),)))
        copied = cli("store", "migrate", str(state), str(other))
        backup = of_store(cli, "backup", "--to", str(tmp_path / "backups"))
    assert f"hooks are still to be told: 1; whoever serves {state} tells them" in copied.stderr.decode()
    assert of_store(cli, "migrate", str(state), str(other))["untold"] == 1
    assert backup
    assert [path for path in tmp_path.rglob("hooks") if path.parent != state] == []
    outbox.remove(task)


def test_a_running_task_is_not_migrated_unless_live(cli: CommandLine, tmp_path: Path) -> None:
    task = cli.run("--", "sleep", "60")
    state, other = str(tmp_path / "state"), str(tmp_path / "other")

    refused = cli("store", "migrate", state, other, code=1)
    assert task in refused.stderr.decode()
    of_store(cli, "migrate", state, other, "--live")

    [copy] = json.loads(cli("ps", "--json", "--dir", other, "--store", "sqlite").stdout)["tasks"]
    assert copy["state"] == "lost"
    [original] = cli.json("ps")["tasks"]
    assert original["state"] == "running"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["migrate", "nowhere", "there"], 2),
        (["migrate", "state", "there", "--from", "memory"], 2),
        (["migrate", "state", "there", "--to", "memory"], 2),
        (["migrate", "state", "state/inner"], 2),
        (["migrate", "state", "there", "--from", "sqlite"], 4),
        (["restore", "20200101T000000Z-1", "--dir", "there"], 2),
        (["backup", "--to", "state/inner"], 2),
        (["verify", "--dir", "nowhere"], 2),
        (["stats", "--store", "memory"], 2),
    ],
)
def test_what_makes_no_sense_is_refused_and_makes_nothing(
    arguments: list[str], code: int, cli: CommandLine, tmp_path: Path
) -> None:
    ended(cli, "--", "true")
    names = ("nowhere", "there", "state", "state/inner")
    given = [str(tmp_path / word) if word in names else word for word in arguments]

    cli("store", *given, code=code)

    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "there" / "sessions" / "root").exists()


def test_a_backup_is_made_listed_rotated_and_restored(cli: CommandLine, tmp_path: Path) -> None:
    task = ended(cli, "--", "echo", "kept")
    made = [of_store(cli, "backup", "--keep", "2") for _ in range(3)]
    names = [one["name"] for one in made]

    listed = of_store(cli, "backups")["backups"]
    assert isinstance(listed, list)
    assert [one["name"] for one in listed] == [names[2], names[1]]
    assert str(names[2]) in cli.text("store", "backups")
    path = cli.text("store", "backup").strip()
    assert Path(path).parent == tmp_path / "mcp-tasks-backups"

    new = str(tmp_path / "new")
    assert cli.text("store", "restore", path, "--dir", new).strip() == new
    assert cli.text("logs", "--dir", new, task) == "kept\n"
    cli("store", "restore", path, code=2)
    aside = of_store(cli, "restore", path, "--replace")["aside"]
    assert Path(str(aside)).is_dir()
    assert cli.text("logs", task) == "kept\n"


def test_a_broken_record_is_named_and_comes_back(cli: CommandLine, tmp_path: Path) -> None:
    task = ended(cli, "--", "echo", "kept")
    assert cli("store", "verify").stderr == b"all is well\n"
    cli("store", "backup")
    [record] = (tmp_path / "state").glob("sessions/*/*/tasks/*.json")
    record.write_bytes(b"broken")

    assert task in cli.text("store", "verify", code=1)
    cli("result", task, code=3)
    told = of_store(cli, "verify", "--repair", "newest")

    assert told["left"] == []
    assert told["repaired"] == [] or task in str(told["repaired"])
    assert cli.text("logs", task) == "kept\n"
    assert task in cli.text("store", "verify", code=1)  # the broken record lies in quarantine/
    for kept in (tmp_path / "state" / "quarantine").iterdir():
        kept.unlink()
    assert cli("store", "verify").stderr == b"all is well\n"


def test_what_no_backup_mends_is_named_with_the_reason(cli: CommandLine, tmp_path: Path) -> None:
    made = cli.text("store", "backup").strip() if ended(cli, "--", "true") else ""
    task = ended(cli, "--", "echo", "kept")
    [record] = (tmp_path / "state").glob(f"sessions/*/*/tasks/{task}.json")
    record.write_bytes(b"broken")

    told = cli("store", "verify", "--repair", "newest", code=1)

    [problem] = told.stdout.decode().splitlines()
    assert task in problem
    [reason] = [line for line in told.stderr.decode().splitlines() if line.startswith("not repaired")]
    assert task in reason
    assert Path(made).name in reason
    assert "could not be read and was set aside" not in told.stderr.decode()


def test_figures_are_told_to_people_and_to_scripts(cli: CommandLine) -> None:
    assert of_store(cli, "stats")["tasks"]["all"] == 0  # type: ignore[index]
    ended(cli, "--", "true")
    cli("store", "cleanup")
    cli("store", "backup")

    told = of_store(cli, "stats")

    assert told["tasks"]["completed"] == 1  # type: ignore[index]
    assert told["cleanup"]["runs"] == 1  # type: ignore[index]
    assert told["backups"]["all"] == 1  # type: ignore[index]
    table = cli.text("store", "stats")
    assert "completed 1" in table
    assert "output" in table


def test_a_session_is_put_away_listed_and_brought_back(cli: CommandLine) -> None:
    task = ended(cli, "--session", "work", "--", "echo", "kept")
    cli.run("--session", "busy", "--", "sleep", "60")

    answer = json.loads(cli("sessions", "archive", "work", "busy", "--json", code=1).stdout)

    [archived], [failed] = answer["archived"], answer["failed"]
    assert (archived["session"], failed["session"]) == ("work", "busy")
    [listed] = json.loads(cli("sessions", "archived", "--json").stdout)["archived"]
    assert (listed["name"], listed["tasks"]) == (archived["archive"], 1)
    assert archived["archive"] in cli.text("sessions", "archived", "--all")
    cli("result", task, code=3)
    assert "busy" in cli("sessions", "archive", "busy", code=1).stderr.decode()

    assert cli.text("sessions", "restore", "work", "--as", "again").strip() == "again"
    assert cli.text("logs", task) == "kept\n"
    cli("sessions", "restore", "work", code=3)
    name = cli.text("sessions", "archive", "again").strip()
    restored = json.loads(cli("sessions", "restore", name, "--keep", "--json").stdout)
    assert restored == {"session": "again", "archive": name, "kept": True}
    actions = [entry["action"] for entry in of_store(cli, "audit", "--limit", "100")["entries"]]  # type: ignore[attr-defined]
    assert {"archived", "restored"} <= set(actions)
    assert "archived" in cli.text("store", "audit")


def test_cleanup_by_hand_goes_by_the_settings(cli: CommandLine) -> None:
    ended(cli, "--", "true")

    assert "0 sessions archived" in cli.text("store", "cleanup")
    done = json.loads(cli("store", "cleanup", "--json", MCP_TASKS_ARCHIVE_DAYS="0").stdout)

    assert done["archived"] == 1


def test_a_key_is_rotated(cli: CommandLine) -> None:
    ended(cli, "--", "true")
    first = of_store(cli, "rotate-key")["key_id"]

    assert of_store(cli, "rotate-key")["key_id"] != first
    assert "sealed anew" in cli.text("store", "rotate-key")


def test_backups_lie_beside_the_state_directory_unless_told_otherwise(tmp_path: Path) -> None:
    from mcp_tasks.settings import Settings

    settings = Settings(dir=tmp_path / "state")
    assert places.backups_folder(settings, None) == tmp_path / "mcp-tasks-backups"
    assert places.backups_folder(settings, Path("here")) == Path(os.getcwd(), "here")


def test_no_backup_has_no_newest_one(cli: CommandLine) -> None:
    assert "None" not in of_store(cli, "stats")
