"""Opening a state directory: whose it is, what is tidied, and how little is read."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from mcp_tasks.codec import decode_task, encode_task
from mcp_tasks.errors import StoreUnavailable, TaskNotFound
from mcp_tasks.models import Finished, SessionKey, Task, TaskKey
from mcp_tasks.stores.disk import mounts, state_folder
from mcp_tasks.stores.json import task_files
from mcp_tasks.stores.json.markers import marker_name
from mcp_tasks.stores.json.store import JsonFileStore
from mcp_tasks.stores.sqlite.store import SqliteStore
from mcp_tasks.transfer import adapter_of
from tests.stores.faulty_os import faulty
from tests.stores.records import OWNER, SESSION, finished, pending, running
from tests.stores.test_json_damage import put, record_of, session_of

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_everything_made_is_for_its_owner_only_whatever_the_umask(root: Path) -> None:
    for mask in (0o000, 0o077):
        before = os.umask(mask)
        try:
            store = JsonFileStore(root)
            store.create(pending(f"session-{mask}", key="k"))
            with store.admission():
                pass
            task = running(f"session-{mask}")
            store.create(task)
            store.replace(finished(task))
        finally:
            os.umask(before)
    for place in (root, *root.rglob("*")):
        assert place.stat().st_mode & 0o777 == (0o700 if place.is_dir() else 0o600), place
    assert JsonFileStore(root).problems() == []


def test_wider_modes_are_narrowed_with_a_warning(root: Path) -> None:
    task = running()
    JsonFileStore(root).create(task)
    opened = (root, root / "active", root / "store.json", record_of(root, task))
    for place in opened:
        place.chmod(place.stat().st_mode | 0o055)
    store = JsonFileStore(root)
    store.load(task.key)
    for place in opened:
        assert place.stat().st_mode & 0o077 == 0
    assert len(store.problems()) == len(opened)
    assert all("open to others" in problem for problem in store.problems())


def test_a_state_directory_remembers_its_adapter_and_refuses_another(root: Path) -> None:
    JsonFileStore(root)
    identity = root / "store.json"
    identity.write_text('{"schema": 1, "adapter": "sqlite"}')
    with pytest.raises(StoreUnavailable, match="sqlite") as refused:
        JsonFileStore(root)
    assert "MCP_TASKS_STORE" in refused.value.hint
    assert identity.read_text() == '{"schema": 1, "adapter": "sqlite"}'


def test_a_state_directory_of_another_adapter_gets_no_folder_of_ours(root: Path) -> None:
    root.mkdir(mode=0o700)
    (root / "store.json").write_text('{"schema": 1, "adapter": "sqlite"}')
    with pytest.raises(StoreUnavailable):
        JsonFileStore(root)
    assert [path.name for path in root.iterdir()] == ["store.json"]


def test_a_state_directory_of_a_newer_version_is_left_untouched(root: Path) -> None:
    JsonFileStore(root).create(running())
    (root / "store.json").write_text('{"schema": 3, "adapter": "json", "more": true}')
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    with pytest.raises(StoreUnavailable, match="newer version"):
        JsonFileStore(root)
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": true, "adapter": "json"}', '{"schema": 1}'])
def test_a_broken_identity_is_set_aside_where_the_records_tell_whose_it_is(root: Path, text: str) -> None:
    task = running()
    JsonFileStore(root).create(task)
    (root / "store.json").write_text(text)
    store = JsonFileStore(root)
    assert store.load(task.key) == task
    assert "store.json" in store.problems()[0]
    assert JsonFileStore(root).problems() == []


def test_a_broken_identity_is_never_replaced_by_that_of_another_adapter(root: Path) -> None:
    task = finished(running())
    store = SqliteStore(root)
    store.create(task)
    (store.make_run_folder(task.key, 1) / "stdout").write_text("precious")
    store.close()
    for damage in ("{", None):
        (root / "store.json").write_text(damage) if damage else (root / "store.json").unlink()
        with pytest.raises(StoreUnavailable):
            JsonFileStore(root)
    (root / "store.json").write_text("{")
    again = SqliteStore(root)
    assert again.load(task.key) == task
    again.close()


def test_who_was_killed_while_a_broken_identity_was_replaced_left_nothing_that_is_refused(root: Path) -> None:
    store = JsonFileStore(root)
    task = running()
    store.create(task)
    (root / "audit.jsonl").touch()
    (root / "store.json").rename(root / "quarantine" / "1700000000000-0123abcd-store.json")

    assert JsonFileStore(root).load(task.key) == task


@pytest.mark.parametrize("adapter", ["json", "sqlite"])
@pytest.mark.parametrize("damage", ["{", None])
def test_an_identity_that_is_lost_is_written_anew_by_the_records_that_are_there(
    root: Path, adapter: str, damage: str | None
) -> None:
    make = JsonFileStore if adapter == "json" else SqliteStore
    first = make(root)
    task = running()
    first.create(task)
    first.close()
    (root / "audit.jsonl").touch()
    (root / "journal.db").touch()
    (root / "store.json").write_text(damage) if damage else (root / "store.json").unlink()

    assert adapter_of(root) == adapter
    again = make(root)
    assert again.load(task.key) == task
    assert "store.json" in again.problems()[0]
    again.close()

    assert json.loads((root / "store.json").read_text())["adapter"] == adapter
    later = make(root)
    assert later.problems() == []
    later.close()


def test_a_folder_of_sessions_of_another_program_is_not_taken_over(root: Path) -> None:
    (root / "sessions" / "one").mkdir(parents=True)
    root.chmod(0o700)
    (root / "active").touch()
    (root / "readme.txt").touch()
    with pytest.raises(StoreUnavailable, match="something else"):
        JsonFileStore(root)
    assert not (root / "store.json").exists()


def test_a_broken_identity_without_records_is_refused(root: Path) -> None:
    root.mkdir(mode=0o700)
    (root / "store.json").write_text("{")
    with pytest.raises(StoreUnavailable, match=r"store\.json cannot be read"):
        JsonFileStore(root)
    assert (root / "store.json").read_text() == "{"


def test_a_link_or_a_file_in_place_of_the_state_directory_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    root.symlink_to(tmp_path / "real")
    with pytest.raises(StoreUnavailable, match="link"):
        JsonFileStore(root)
    root.unlink()
    root.write_text("")
    with pytest.raises(StoreUnavailable, match="no folder"):
        JsonFileStore(root)
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no users there as here")
def test_a_state_directory_of_another_user_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    JsonFileStore(root)
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    with pytest.raises(StoreUnavailable, match="another user"):
        JsonFileStore(root)


def test_a_network_file_system_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_kind", lambda place: "nfs4")
    with pytest.raises(StoreUnavailable, match="nfs4"):
        JsonFileStore(root)
    assert not root.exists()


def test_where_the_mounts_cannot_be_told_the_directory_is_taken_as_local(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_MOUNTINFO", root / "missing")
    JsonFileStore(root)


def test_a_state_directory_whose_parents_are_missing_is_made(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b" / "state"
    JsonFileStore(root).create(running())
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_a_directory_of_schema_1_always_loads(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "schema1", tmp_path / "state")
    store = JsonFileStore(tmp_path / "state")
    sessions = store.sessions()
    assert [(session.key.owner, session.key.session) for session in sessions] == [
        ("somebody", "Mixed.Case"),
        ("somebody", "default"),
    ]
    found = {task.spec.label: task.state_name for one in sessions for task in store.tasks(one.key)}
    assert found == {
        "waits": "pending",
        "runs": "running",
        "done": "completed",
        "exit 3": "failed",
        "crashed": "failed",
        "too late": "failed",
        "cancelled": "cancelled",
        "too much": "failed",
        "not there": "failed",
        "left behind": "failed",
        "lost": "lost",
        "has fields that nobody knows": "completed",
    }
    assert [store.load(key).spec.label for key in store.unfinished()] == ["waits", "runs"]
    assert [store.load(key).spec.label for key in store.pending()] == ["waits"]
    held = store.find_key(SESSION, "a key")
    assert held is not None
    assert held.spec.label == "done"
    assert [problem for problem in store.problems() if "open to others" not in problem] == []


def test_a_directory_of_schema_1_is_lifted_so_that_an_older_program_refuses_it(tmp_path: Path) -> None:
    root = tmp_path / "state"
    shutil.copytree(FIXTURES / "schema1", root)
    identity = json.loads((root / "store.json").read_bytes())
    assert identity["schema"] == 1
    JsonFileStore(root)
    assert json.loads((root / "store.json").read_bytes()) == {**identity, "schema": 2}
    assert JsonFileStore(root).held() == []
    (root / "store.json").write_text('{"schema": 1, "adapter": "sqlite"}')
    with pytest.raises(StoreUnavailable, match="sqlite"):
        JsonFileStore(root)
    assert json.loads((root / "store.json").read_bytes())["schema"] == 1


def test_a_directory_of_schema_2_always_loads(tmp_path: Path) -> None:
    """Written by a real server: a record of each kind of state, a changed session, a plan half done."""
    shutil.copytree(FIXTURES / "schema2", tmp_path / "state")
    store = JsonFileStore(tmp_path / "state")
    mixed, default = store.sessions()
    assert (mixed.key, default.key) == (SessionKey(OWNER, "Mixed.Case"), SESSION)
    assert (default.title, default.revision, default.workspace.cwd) == ("A title", 1, "/")
    assert default.workspace.preferences == {"colour": "green"}
    assert default.workspace.env.keys() == {"NAME"}
    assert [share.role for share in default.shares] == ["read"]
    found = {task.spec.label: task.state_name for task in store.tasks(SESSION)}
    assert found == {
        "done": "completed",
        "exit 3": "failed",
        "crashed": "failed",
        "too late": "failed",
        "too much": "failed",
        "not there": "failed",
        "left behind": "failed",
        "cancelled": "cancelled",
        "lost": "lost",
        "runs": "running",
        "runs too": "running",
        "waits": "pending",
        "retried": "pending",
        "later": "pending",
    }
    assert store.counts(SESSION) == Counter(found.values())
    outcomes = {task.state.outcome.kind for task in store.tasks(SESSION) if isinstance(task.state, Finished)}
    assert outcomes == {
        *("exited", "signalled", "timed_out", "cancelled", "output_limit", "spawn_failed"),
        *("dependency_failed", "lost"),
    }
    assert [store.load(key).spec.label for key in store.pending()] == ["waits"]
    assert {store.load(key).spec.label for key in store.held()} == {"retried", "later", "third"}
    [plan] = store.plans(mixed.key)
    assert (plan.name, plan.on_failure) == ("a plan", "stop")
    assert list(store.states(mixed.key, plan.tasks).values()) == ["completed", "running", "pending"]
    assert all(store.load(TaskKey(OWNER, "Mixed.Case", each)).spec.plan for each in plan.tasks)
    holder = store.find_key(SESSION, "a key")
    assert holder is not None
    assert holder.spec.label == "done"
    assert [problem for problem in store.verify() if "open to others" not in problem] == []


def test_marks_are_built_anew_after_the_machine_has_started_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JsonFileStore(root)
    works, waits, over = running(), pending("other"), finished(running())
    for task in (works, waits, over):
        store.create(task)
    for mark in [*(root / "active").iterdir(), *(root / "pending").iterdir()]:
        mark.unlink()  # as a power cut may
    assert JsonFileStore(root).unfinished() == []
    monkeypatch.setattr(state_folder, "boot_id", lambda: "another start")
    again = JsonFileStore(root)
    assert again.unfinished() == [works.key, waits.key]
    assert again.pending() == [waits.key]
    monkeypatch.setattr(JsonFileStore, "rebuild_markers", lambda self: pytest.fail("built twice"))
    JsonFileStore(root)


@pytest.mark.parametrize("lost", ["active", "pending", "held", "boot"])
def test_marks_are_built_anew_where_they_are_missing(root: Path, lost: str) -> None:
    task = pending()
    JsonFileStore(root).create(task)
    place = root / lost
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    again = JsonFileStore(root)
    assert again.unfinished() == again.pending() == [task.key]


def test_a_mark_that_a_killed_process_left_is_removed_when_the_task_is_final(root: Path) -> None:
    store = JsonFileStore(root)
    task = pending()
    store.create(task)
    store.replace(finished(store.load(task.key)))
    for name in ("active", "pending"):
        (root / name / marker_name(task.key)).touch()
    assert store.unfinished() == store.pending() == []
    for name in ("active", "pending"):
        assert not (root / name / marker_name(task.key)).exists()


def test_a_mark_without_a_record_is_kept_for_a_minute(root: Path) -> None:
    now = [1000.0]
    store = JsonFileStore(root, now=lambda: now[0])
    store.create(neighbour := running())
    coming, late = pending(), pending("nowhere")
    for task in (coming, late):
        (root / "active" / marker_name(task.key)).touch()
    for moment in (1000.0, 1059.0):
        now[0] = moment
        assert store.unfinished() == [neighbour.key]
        assert (root / "active" / marker_name(late.key)).exists()
    put(root, coming)
    now[0] = 1061.0
    assert store.unfinished() == [neighbour.key, coming.key]
    assert not (root / "active" / marker_name(late.key)).exists()


def test_marks_go_on_when_their_anchor_is_lost(root: Path) -> None:
    store = JsonFileStore(root)
    store.create(first := running())
    (root / "active" / ".mark").unlink()
    store.create(second := running())
    store.create(third := running())
    assert store.unfinished() == [first.key, second.key, third.key]
    assert (root / "active" / ".mark").stat().st_nlink == 3


def test_temporary_files_of_killed_writers_are_removed_after_a_minute(root: Path) -> None:
    store = JsonFileStore(root)
    task = running(key="k")
    store.create(task)
    session = session_of(root, task)
    old = [root / ".store.json.tmp", session / ".session.json.tmp", session / "keys" / ".x.0.tmp"]
    young = [root / ".boot.tmp", session / ".young.tmp"]
    for place in (*old, *young):
        place.write_text("half")
    for place in old:
        os.utime(place, (time.time() - 61, time.time() - 61))
    again = JsonFileStore(root)
    again.create(pending())
    assert [place.exists() for place in (*old, *young)] == [False] * 3 + [True] * 2

    left = session / "tasks" / f".{record_of(root, task).name}.tmp"
    left.write_text("half")
    task = again.replace(again.load(task.key))
    assert left.exists()
    os.utime(left, (time.time() - 61, time.time() - 61))
    again.replace(task)
    assert not left.exists()


def test_opening_and_looking_for_unfinished_tasks_reads_no_final_one(root: Path) -> None:
    store = JsonFileStore(root)
    store.create(finished(running()))
    for _ in range(2000):
        put(root, finished(running()))
    waits = pending()
    store.create(waits)
    with faulty(-1, lambda *_: None) as counted:
        again = JsonFileStore(root)
        assert again.unfinished() == again.pending() == [waits.key]
    assert counted.calls < 60
    with faulty(-1, lambda *_: None) as counted:
        assert again.unfinished() == again.pending() == [waits.key]
    assert counted.calls <= 6


def test_final_tasks_are_read_once_and_listed_from_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JsonFileStore(root)
    works, over = running(), finished(running())
    for task in (works, over):
        store.create(task)
    assert list(store.tasks(SESSION)) == [over, works]
    decoded: list[bytes] = []

    def decode(data: bytes) -> Task:
        decoded.append(data)
        return decode_task(data)

    monkeypatch.setattr(task_files, "decode_task", decode)
    assert list(store.tasks(SESSION)) == [over, works]
    assert decoded == [encode_task(works)]
    JsonFileStore(root).delete(over.key)
    with pytest.raises(TaskNotFound):
        store.load(over.key)
    store.close()


def test_the_layout_is_the_one_that_is_documented(root: Path) -> None:
    store = JsonFileStore(root)
    task = pending("Mixed", key="k")
    store.create(task)
    name = task.key.task_id
    assert {str(path.relative_to(root)) for path in root.rglob("*")} == {
        "active",
        "active/.mark",
        f"active/{name}~somebody~mixed^1",
        "boot",
        "pending",
        "held",
        "pending/.mark",
        f"pending/{name}~somebody~mixed^1",
        "quarantine",
        "sessions",
        "sessions.lock",
        "sessions/somebody",
        "sessions/somebody/mixed^1",
        "sessions/somebody/mixed^1/keys",
        "sessions/somebody/mixed^1/keys/8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a",
        "sessions/somebody/mixed^1/lock",
        "sessions/somebody/mixed^1/session.json",
        "sessions/somebody/mixed^1/tasks",
        "sessions/somebody/mixed^1/runs",
        f"sessions/somebody/mixed^1/tasks/{name}.json",
        "slots",
        "store.json",
        "trash",
    }
    assert store.run_folder(task.key, 2) == root / "sessions" / OWNER / "mixed^1" / "runs" / f"{name}.2"


def test_a_folder_that_serves_another_purpose_is_left_as_it_is(root: Path) -> None:
    root.mkdir(mode=0o755)
    (root / "sessions").mkdir(mode=0o755)
    (root / "precious").write_text("x")
    with pytest.raises(StoreUnavailable, match="something else"):
        JsonFileStore(root)
    assert root.stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in root.iterdir()) == ["precious", "sessions"]


def test_a_folder_that_everybody_writes_to_is_left_as_it_is(root: Path) -> None:
    root.mkdir()
    root.chmod(0o1777)
    with pytest.raises(StoreUnavailable, match="everybody"):
        JsonFileStore(root)
    assert root.stat().st_mode & 0o7777 == 0o1777
    assert list(root.iterdir()) == []


def test_a_state_directory_that_is_gone_is_unavailable_and_its_tasks_are_not_said_to_be_gone(
    root: Path,
) -> None:
    store = JsonFileStore(root)
    task = pending()
    store.create(task)
    shutil.rmtree(root)
    for look in (
        lambda: store.load(task.key),
        lambda: store.locate(OWNER, task.key.task_id),
        lambda: list(store.tasks(task.key.session_key)),
        store.sessions,
    ):
        with pytest.raises(StoreUnavailable, match="gone"):
            look()
    store.close()
