from __future__ import annotations

import json
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from mcp_tasks.projects import Looks, Project, ProjectCache, Watching, changes, watch
from mcp_tasks.projects.discovery import discover
from mcp_tasks.projects.project import Declared, Language, Vcs
from mcp_tasks.projects.watching import _follow
from tests.projects.folders import OTHER, git, put
from tests.waiting import eventually


class Time:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return put(git(tmp_path / "work"), Makefile="test:\n", src__a_dot_py="")


def test_who_asks_again_is_told_what_is_known(work: Path, time: Time) -> None:
    cache = ProjectCache(None, time)
    first = cache.look(str(work))
    again = cache.look(str(work) + "/./")
    assert (first.cached, again.cached) == (False, True)
    assert first.project == again.project
    figures = cache.figures()
    assert figures["bytes"] > 0
    assert {**figures, "bytes": 0} == {
        "hits": 1,
        "misses": 1,
        "evictions": 0,
        "invalidations": 0,
        "entries": 1,
        "bytes": 0,
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda work: (work / "Makefile").write_text("test: x\nbuild:\n"),
        lambda work: (work / "package.json").write_text("{}"),
        lambda work: (work / "Makefile").unlink(),
        lambda work: (work / ".git/HEAD").write_text("ref: refs/heads/other\n"),
        lambda work: (work / ".git/refs/heads/main").write_text(OTHER),
        lambda work: (work / ".git/config").write_text('[remote "origin"]\nurl = /x\n'),
        lambda work: (work / "src/Cargo.toml").write_text(""),
        lambda work: (work / ".gitignore").write_text("src\n"),
    ],
    ids=["edited", "added", "removed", "branch", "commit", "remote", "below", "ignored"],
)
def test_a_change_of_what_was_looked_at_is_noticed(work: Path, time: Time, change: object) -> None:
    cache = ProjectCache(None, time)
    cache.look(str(work))
    assert callable(change)
    change(work)
    assert not cache.look(str(work)).cached
    assert cache.look(str(work)).cached
    assert cache.figures()["invalidations"] == 1


def test_a_look_is_taken_for_true_only_so_long_and_never_from_the_future(work: Path, time: Time) -> None:
    cache = ProjectCache(None, time, ttl_ms=100)
    cache.look(str(work))
    time.now += 99
    assert cache.look(str(work)).cached
    time.now += 1
    assert not cache.look(str(work)).cached
    time.now -= 1_000
    assert not cache.look(str(work)).cached


def test_refresh_looks_again(work: Path, time: Time) -> None:
    cache = ProjectCache(None, time)
    cache.look(str(work))
    assert not cache.look(str(work), refresh=True).cached


def test_the_folder_used_longest_ago_makes_room(tmp_path: Path, time: Time) -> None:
    folders = [str(git(tmp_path / name)) for name in "abc"]
    cache = ProjectCache(None, time, most_entries=2)
    for folder in (folders[0], folders[1], folders[0], folders[2]):
        cache.look(folder)
    assert cache.figures()["evictions"] == 1
    assert cache.look(folders[0]).cached
    assert not cache.look(folders[1]).cached
    small = ProjectCache(None, time, most_bytes=10)
    small.look(folders[0])
    assert (small.figures()["entries"], small.figures()["bytes"]) == (0, 0)


def test_many_who_ask_at_once_look_once(work: Path, time: Time) -> None:
    cache = ProjectCache(None, time)
    threads = [threading.Thread(target=cache.look, args=(str(work),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (cache.figures()["misses"], cache.figures()["hits"]) == (1, 7)
    assert cache._turns == {}


def test_the_last_look_that_was_told_is_what_the_next_is_compared_with(work: Path, time: Time) -> None:
    cache = ProjectCache(None, time)
    assert cache.look(str(work)).before is None
    time.now += 5
    put(work, package_dot_json='{"scripts": {"test": "x"}}')
    cache.look(str(work), tell=False)  # a look in advance is nobody's
    found = cache.look(str(work))
    assert found.before is not None
    assert found.before_at == 1_000_000
    assert "test command added: npm test (from package.json)" in changes(found.before, found.project)
    unchanged = cache.look(str(work))
    assert unchanged.before is not None
    assert changes(unchanged.before, unchanged.project) == []


def test_a_restart_forgets_neither_the_look_nor_what_was_told(work: Path, tmp_path: Path, time: Time) -> None:
    kept = tmp_path / "context"
    ProjectCache(Looks(kept), time).look(str(work))
    again = ProjectCache(Looks(kept), time)
    assert again.look(str(work)).cached
    put(work, Makefile="build:\n")
    third = ProjectCache(Looks(kept), time).look(str(work))
    assert not third.cached
    assert third.before is not None
    assert "test command gone: make test (from Makefile)" in changes(third.before, third.project)
    assert stat.S_IMODE(os.stat(kept).st_mode) == 0o700
    for file in kept.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_figures_of_those_that_have_ended_are_added_up(work: Path, tmp_path: Path, time: Time) -> None:
    kept = tmp_path / "context"
    for _ in range(3):
        cache = ProjectCache(Looks(kept), time)
        cache.look(str(work))
        cache.close()
        cache.close()  # adds nothing more
    ProjectCache(Looks(kept), time).close()
    totals = ProjectCache(Looks(kept), time).totals()
    assert (totals["misses"], totals["hits"], totals["kept"]) == (1, 2, 1)
    assert totals["kept_bytes"] > 100
    cache = ProjectCache(Looks(kept), time)
    assert cache.clear() == 1
    assert cache.totals()["misses"] == 0
    assert not cache.look(str(work)).cached
    memory = ProjectCache(None, time)
    memory.look(str(work))
    memory.close()
    assert "kept" not in memory.totals()
    assert memory.clear() == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"project": 5}', b"x" * 600_000])
def test_kept_looks_that_cannot_be_read_are_no_looks(
    work: Path, tmp_path: Path, time: Time, data: bytes
) -> None:
    kept = tmp_path / "context"
    ProjectCache(Looks(kept), time).look(str(work))
    [file] = kept.glob("*.json")
    file.write_bytes(data)
    (kept / "figures").write_bytes(data)
    cache = ProjectCache(Looks(kept), time)
    assert not cache.look(str(work)).cached
    assert cache.totals()["hits"] == 0


def test_a_look_that_somebody_else_has_put_there_is_not_believed(
    work: Path, tmp_path: Path, time: Time
) -> None:
    kept = tmp_path / "context"
    ProjectCache(Looks(kept), time).look(str(work))
    [file] = kept.glob("*.json")
    text = json.loads(file.read_text())
    text["project"]["cwd"] = "/else"
    file.write_text(json.dumps(text))
    assert not ProjectCache(Looks(kept), time).look(str(work)).cached
    moved = tmp_path / "moved"
    file.rename(moved)
    file.symlink_to(moved)
    assert not ProjectCache(Looks(kept), time).look(str(work)).cached
    file.unlink()
    os.mkfifo(file)
    assert not ProjectCache(Looks(kept), time).look(str(work)).cached


def test_where_looks_cannot_be_kept_they_are_taken_all_the_same(
    work: Path, tmp_path: Path, time: Time
) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "missing/context"):
        cache = ProjectCache(Looks(place), time)
        assert not cache.look(str(work)).cached
        assert cache.look(str(work)).cached
        cache.close()
        assert cache.totals()["kept"] == 0


def test_figures_wait_for_nobody_for_long(work: Path, tmp_path: Path, time: Time) -> None:
    from filelock import FileLock

    kept = tmp_path / "context"
    cache = ProjectCache(Looks(kept), time)
    cache.look(str(work))
    with FileLock(kept / ".lock"):
        cache.close()
    assert ProjectCache(Looks(kept), time).totals()["misses"] == 0


def test_only_so_many_looks_are_kept(tmp_path: Path, time: Time) -> None:
    looks = Looks(tmp_path / "context", most=3)
    cache = ProjectCache(looks, time)
    for name in "abcde":
        cache.look(str(git(tmp_path / name)))
    assert looks.size()[0] == 3


def test_a_path_that_is_no_text_is_remembered_in_memory_alone(tmp_path: Path, time: Time) -> None:
    odd = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xff"))
    os.mkdir(odd)
    looks = Looks(tmp_path / "context")
    cache = ProjectCache(looks, time)
    assert not cache.look(odd).cached
    assert cache.look(odd).cached
    assert looks.size() == (0, 0)


def test_changes_are_told_one_by_one_and_not_without_end() -> None:
    before = Project("/a", "/a", Vcs("git", "main", "1"), (Language("C", 2),), (Declared("make", "M"),))
    now = replace(before, root="/b", vcs=None, languages=(Language("Go", 1),), build=(), problems=("p",))
    assert changes(before, before) == []
    assert changes(before, now) == [
        "root: /a -> /b",
        "version control: git -> none",
        "branch: main -> none",
        "commit: 1 -> none",
        "build command gone: make (from M)",
        "C files: 2 -> 0",
        "Go files: 0 -> 1",
        "problem added: p",
    ]
    many = replace(before, manifests=tuple(f"{number}" for number in range(100)))
    assert changes(before, many)[-1] == "and 60 more"


def test_what_is_touched_and_no_longer_true_is_let_go(work: Path, time: Time) -> None:
    cache = ProjectCache(None, time)
    cache.look(str(work))
    assert str(work) in cache.folders()
    assert cache.recheck([str(work / "untouched")]) == 0
    put(work, Makefile="build: x\n")
    assert cache.recheck(["/elsewhere/x"]) == 0
    assert cache.recheck([str(work / "Makefile")]) == 1
    assert (cache.figures()["entries"], cache.figures()["invalidations"]) == (0, 1)


@pytest.mark.anyio
async def test_a_change_is_heard_of_while_nobody_asks(work: Path, tmp_path: Path, time: Time) -> None:
    cache, watching = ProjectCache(None, time), Watching()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(watch, cache, watching, 0.0)
            await anyio.lowlevel.checkpoint()
            cache.look(str(git(tmp_path / "first")))
            watching.follow(cache.folders())
            await anyio.lowlevel.checkpoint()
            cache.look(str(work))
            watching.follow(cache.folders())

            async def heard() -> bool:
                # Watching begins some time after it was asked for, so the change is made again.
                put(work, Makefile=f"build: {os.urandom(4).hex()}\n")
                return cache.figures()["invalidations"] > 0

            await eventually(heard, "the change is heard of", 20)
            group.cancel_scope.cancel()
    assert cache.figures()["entries"] == 1


@pytest.mark.anyio
async def test_folders_that_are_gone_are_not_watched(tmp_path: Path, time: Time) -> None:
    with anyio.fail_after(5):
        await _follow(ProjectCache(None, time), frozenset([str(tmp_path / "gone")]), anyio.Event())


@pytest.mark.anyio
async def test_a_watcher_that_fails_is_told_of_in_the_log(
    work: Path, time: Time, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no watches are left")

    monkeypatch.setattr("watchfiles.awatch", fail)
    with anyio.fail_after(5):
        await _follow(ProjectCache(None, time), frozenset([str(work)]), anyio.Event())
    assert "projects are not watched: no watches are left" in caplog.text


@pytest.mark.anyio
async def test_without_watchfiles_nothing_is_watched(
    work: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    cache, watching = ProjectCache(None, time), Watching()
    cache.look(str(work))
    watching.follow(cache.folders())
    with anyio.fail_after(5):
        await watch(cache, watching, 0.0)


def test_a_look_costs_nothing_that_was_not_asked_for(work: Path) -> None:
    before = sorted(str(path) for path in work.rglob("*"))
    discover(str(work))
    assert sorted(str(path) for path in work.rglob("*")) == before
