from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import CommandLine


def test_a_journal_is_written_read_and_searched_by_hand(cli: CommandLine) -> None:
    first = cli.text("journal", "add", "where do we stand?").strip()
    cli("journal", "add", "-", "--role", "assistant", "--parent", first, stdin=b"half way")
    cli("journal", "edit", first, "Where do we stand?")
    shown = cli.text("journal", "read")
    view = json.loads(cli.text("journal", "read", "--json", "--all", "--role", "user"))

    assert shown.index("Where do we stand?") < shown.index("half way")
    assert [one["text"] for one in view["messages"]] == ["Where do we stand?"]
    assert "half way" in cli.text("journal", "search", "HALF", "way")
    assert "half way" in cli.text("journal", "read", "--branch", _second(cli), "--oldest")
    versions = cli.text("journal", "read", "--versions", first)
    assert versions.index("where") < versions.index("Where")
    cli("journal", "search", "nothing", code=1)
    cli("journal", "edit", "nobody", "x", code=3)
    cli("journal", "add", "x", "--role", "tool", code=2)


def _second(cli: CommandLine) -> str:
    view = json.loads(cli.text("journal", "read", "--json", "--role", "assistant"))
    message_id: str = view["messages"][0]["message_id"]
    return message_id


def test_messages_about_a_task_are_found_by_its_id(cli: CommandLine) -> None:
    task_id = cli.run("--", "true")
    cli("wait", task_id)
    cli("journal", "add", "that went well", "--task", task_id[:20])

    assert "that went well" in cli.text("journal", "read", "--task", task_id[:20], "--role", "user")


def test_an_export_is_imported_and_a_broken_one_refused(cli: CommandLine, tmp_path: Path) -> None:
    for n in range(4):
        cli("journal", "add", f"text {n}")
    assert b"3 messages folded" in cli("journal", "prune", "--keep", "2").stderr
    assert "text 0" in cli.text("journal", "read", "--folded", "-n", "1000")
    file = tmp_path / "export.json"
    cli("journal", "export", "--json", "-o", str(file))
    told = json.loads(cli.text("journal", "import", "-s", "copy", str(file), "--json"))

    assert told["imported"] == 5  # that the session was created is the first
    assert b"0 messages imported, 5 were" in cli("journal", "import", "-s", "copy", str(file)).stderr
    assert "text 0" in cli.text("journal", "export", "-s", "copy", "--format", "markdown")
    stats = json.loads(cli.text("journal", "stats", "--json"))
    assert (stats["live"], stats["folded"]) == (2, 3)
    assert "live: 2" in cli.text("journal", "stats")
    file.write_text(file.read_text().replace('"role": "user"', '"role": "nobody"'))
    done = cli("journal", "import", "-s", "other", str(file), code=2)
    assert b"role" in done.stderr


def test_what_is_shown_and_told_can_be_json(cli: CommandLine) -> None:
    added = json.loads(cli.text("journal", "add", "one", "--json"))["message"]
    edited = json.loads(cli.text("journal", "edit", added["message_id"], "two", "--json"))["message"]
    pruned = json.loads(cli.text("journal", "prune", "--json"))

    assert (added["text"], edited["text"]) == ("one", "two")
    assert pruned["folded"] == 0


def test_doctor_tells_of_a_damaged_journal(cli: CommandLine) -> None:
    cli("journal", "add", "one")
    (cli.place / "state" / "journal.db").write_bytes(b"garbage" * 2_000)
    done = cli.text("doctor")

    assert "journal" in done
    assert "set aside" in done
    assert "readable" in cli.text("doctor")
