from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_tasks.ports import Audit
from mcp_tasks.stores.audit_file import AuditFile, AuditInMemory

GITHUB = "ghp_" + "a1B2" * 9


@pytest.fixture(params=["file", "memory"])
def audit(request: pytest.FixtureRequest, tmp_path: Path) -> Audit:
    return AuditFile(tmp_path, lambda: 1.5) if request.param == "file" else AuditInMemory(lambda: 1.5)


def test_entries_come_back_newest_first(audit: Audit) -> None:
    audit.note("session.created", owner="ann", session="s", by="ann")
    audit.note("share.made", owner="ann", session="s", by="ann", detail={"role": "read"})

    newest, oldest = audit.read()
    assert newest == {
        "at": "1970-01-01T00:00:01.500Z",
        "action": "share.made",
        "owner": "ann",
        "session": "s",
        "by": "ann",
        "detail": {"role": "read"},
    }
    assert oldest["action"] == "session.created"
    assert [entry["action"] for entry in audit.read(limit=1)] == ["share.made"]


def test_before_the_first_entry_there_is_nothing(audit: Audit) -> None:
    assert list(audit.read()) == []


def test_secrets_in_the_detail_are_redacted(audit: Audit) -> None:
    audit.note("x", owner="ann", by="ann", detail={"token": "hunter2", "text": f"a {GITHUB} b"})

    assert audit.read()[0]["detail"] == {"token": "[redacted]", "text": "a [redacted] b"}


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.touch(mode=0o644)
    AuditFile(tmp_path).note("x", owner="ann", by="ann")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_entry_that_was_half_written_hides_no_other(tmp_path: Path) -> None:
    audit = AuditFile(tmp_path)
    audit.note("first", owner="ann", by="ann")
    with open(tmp_path / "audit.jsonl", "ab") as file:
        file.write(b'{"action": "torn", "own')
    assert [entry["action"] for entry in audit.read()] == ["first"]
    audit.note("second", owner="ann", by="ann")

    assert [entry["action"] for entry in audit.read()] == ["second", "first"]


def test_lines_of_foreign_bytes_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_bytes(b'\xff\xfe\n[]\n3\n{"action": "x"}\n\n')

    assert list(AuditFile(tmp_path).read()) == [{"action": "x"}]


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "missing folder"])
def test_what_cannot_be_noted_is_logged_and_raises_nothing(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "audit.jsonl"
    target = tmp_path / "target"
    target.write_text("kept")
    if kind == "link":
        place.symlink_to(target)
    elif kind == "folder":
        place.mkdir()
    elif kind == "fifo":
        os.mkfifo(place)
    audit = AuditFile(tmp_path / "missing" if kind == "missing folder" else tmp_path)

    with caplog.at_level(logging.WARNING):
        audit.note("share.made", owner="ann", by="ann")
        assert list(audit.read()) == []
    assert "share.made" in caplog.text
    assert target.read_text() == "kept"


def test_a_detail_that_is_no_json_or_very_long_is_no_reason_to_lose_the_entry(tmp_path: Path) -> None:
    audit = AuditFile(tmp_path)
    audit.note("odd", owner="ann", by="ann", detail={"path": Path("/x")})
    audit.note("long", owner="ann", by="ann", detail={"text": "x" * 1_000_000})

    long, odd = audit.read()
    assert odd["detail"] == {"path": "/x"}
    assert long["detail"]["left_out_bytes"] > 1_000_000


def test_reading_the_newest_of_very_many_reads_the_end_of_the_file(tmp_path: Path) -> None:
    lines = (json.dumps({"action": f"a{number}", "pad": "x" * 90}) for number in range(20_000))
    (tmp_path / "audit.jsonl").write_text("\n".join(lines) + "\n")
    audit = AuditFile(tmp_path)

    assert [entry["action"] for entry in audit.read(limit=2)] == ["a19999", "a19998"]
    assert len(audit.read(limit=100_000)) == 20_000


def test_many_processes_lose_no_entry(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mcp_tasks.stores.audit_file import AuditFile;"
        "audit = AuditFile(Path(sys.argv[1]));"
        "[audit.note(f'{sys.argv[2]}.{n}', owner='a', by='a', detail={'x': 'y' * 500}) for n in range(50)]"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(number)], cwd=Path(__file__).parents[2]
        )
        for number in range(4)
    ]
    assert [process.wait(60) for process in processes] == [0] * 4

    found = {entry["action"] for entry in AuditFile(tmp_path).read(limit=1000)}
    assert found == {f"{process}.{number}" for process in range(4) for number in range(50)}
