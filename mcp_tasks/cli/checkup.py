"""What `doctor` looks at: each thing that has to hold for tasks to be kept."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mcp_tasks.cli.printing import size
from mcp_tasks.cli.versions import installed
from mcp_tasks.errors import TasksError

if TYPE_CHECKING:
    from mcp_tasks.ports import Store
    from mcp_tasks.settings import Settings

__all__ = ["Finding", "examine"]

_PROBE_MS = 20_000
_MOST_TOLD = 10


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Attributes:
        verdict: `wrong` where tasks could be refused or lost, `look` where a person might want to.
        hint: What to do about it.
    """

    verdict: Literal["well", "look", "wrong"]
    what: str
    found: str
    hint: str = ""

    def as_fields(self) -> dict[str, str]:
        """For JSON; empty fields are left out."""
        return {name: value for name, value in asdict(self).items() if value}


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; nothing that is wrong keeps the rest from being looked at."""
    findings = [Finding("well", "version", _versions())]
    for check in (_directory, _modes, _disk, _locks, _launcher, _records, _journal, _keys):
        try:
            findings += check(settings)
        except TasksError as error:
            findings.append(Finding("wrong", _name(check), error.message, error.hint))
        except OSError as error:
            findings.append(Finding("wrong", _name(check), error.strerror or type(error).__name__))
    told = "\n".join(finding.found for finding in findings if finding.verdict == "look")
    return [*findings, *_set_aside(settings.dir, told)]


def _name(check: Callable[[Settings], Iterator[Finding]]) -> str:
    return check.__name__.removeprefix("_")


def _versions() -> str:
    machine = f"Python {platform.python_version()} on {platform.system()} {platform.release()}"
    return f"{installed('mcp-tasks')}, {installed('mcp')}, {machine}"


def _directory(settings: Settings) -> Iterator[Finding]:
    if settings.store == "memory":
        yield Finding("look", "directory", "none: the memory store ends with its server")
        return
    from mcp_tasks.app import open_store

    with closing(open_store(settings)) as store:
        yield Finding("well", "directory", f"{settings.dir} ({settings.store})")
        for problem in store.problems():  # put right by opening it, so nobody else will say so
            yield Finding("look", "directory", problem)


def _modes(settings: Settings) -> Iterator[Finding]:
    if settings.store == "memory":
        return
    found = os.stat(settings.dir)
    if found.st_uid != os.getuid():
        yield Finding("wrong", "modes", f"it belongs to user {found.st_uid}", "set MCP_TASKS_DIR to your own")
    elif stat.S_IMODE(found.st_mode) & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        hint = "a state directory is closed to others when it is used"
        yield Finding("wrong", "modes", f"others may look into it ({mode:04o})", hint)
    else:
        yield Finding("well", "modes", "yours alone")


def _disk(settings: Settings) -> Iterator[Finding]:
    place = settings.dir
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < settings.min_free_bytes:
        hint = "make room, or set MCP_TASKS_MIN_FREE_BYTES"
        yield Finding("wrong", "disk", f"{size(free)} free, {size(settings.min_free_bytes)} wanted", hint)
    else:
        yield Finding("well", "disk", f"{size(free)} free")


def _locks(settings: Settings) -> Iterator[Finding]:
    """Whether what tells life from death holds on this file system."""
    import fcntl

    with tempfile.TemporaryDirectory(
        prefix="doctor-", dir=None if settings.store == "memory" else settings.dir
    ) as folder:
        lock = os.path.join(folder, "lock")
        first, second = (os.open(lock, os.O_RDWR | os.O_CREAT, 0o600) for _ in range(2))
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                yield Finding("wrong", "locks", "two may hold the same lock", "use a local disk")
                return
        finally:
            os.close(first)
            os.close(second)
        pipe = os.path.join(folder, "pipe")
        os.mkfifo(pipe, 0o600)
        os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
    yield Finding("well", "locks", "locks and pipes hold")


def _launcher(settings: Settings) -> Iterator[Finding]:
    """Run a command from end to end, in a store that leaves nothing behind."""
    import anyio

    from mcp_tasks.app import open_service
    from mcp_tasks.requests import RunCommand
    from mcp_tasks.service import Caller

    aside = settings.model_copy(update={"store": "memory", "min_free_bytes": 0})

    async def probe() -> str:
        async with open_service(aside) as service:
            caller = Caller(settings.owner, "doctor", named=True, max_wait_ms=_PROBE_MS)
            try:
                view = await service.run_command(
                    caller, RunCommand(command=("echo", "well"), wait_ms=_PROBE_MS)
                )
            except TasksError as error:
                return str(error)
        return "" if view.get("stdout") == "well\n" else f"echo: {view['state']} {view.get('error', '')}"

    if wrong := anyio.run(probe):
        yield Finding("wrong", "commands", wrong, "nothing can be run here")
    else:
        yield Finding("well", "commands", "started, watched and read")


def _records(settings: Settings) -> Iterator[Finding]:
    if settings.store == "memory":
        return
    from mcp_tasks.app import open_store

    with closing(open_store(settings)) as store:
        yield from _tasks(store)
        problems = list(store.verify())
        sessions = len(store.sessions())
    for problem in problems:  # every one: each is something that somebody may miss
        yield Finding("wrong", "records", problem)
    if not problems:
        yield Finding("well", "records", f"all readable, in {sessions} sessions")


def _journal(settings: Settings) -> Iterator[Finding]:
    if settings.store == "memory":
        return
    from mcp_tasks.app import open_place

    place = open_place(settings)
    with closing(place.store), closing(place.journal) as journal:
        wrong = list(journal.verify())
        told = journal.problems()
    for problem in [*told, *wrong][:_MOST_TOLD]:
        yield Finding("wrong" if problem in wrong else "look", "journal", problem)
    if not wrong and not told:
        yield Finding("well", "journal", "readable")


def _keys(settings: Settings) -> Iterator[Finding]:
    """Whether the keys are here that sealed values name."""
    if settings.store == "memory":
        return
    from mcp_tasks.app import open_place
    from mcp_tasks.sealing import open_sealer
    from mcp_tasks.sealing.sealer import key_id_of

    used: Counter[str] = Counter()

    def count(sealed: str) -> None:
        if (key_id := key_id_of(sealed)) is not None:
            used[key_id] += 1

    place = open_place(settings)
    with closing(place.store), closing(place.journal) as journal:
        sessions = place.store.sessions()
        for session in sessions:
            for value in session.workspace.env.values():
                count(value)
        if any(session.seal_journal for session in sessions):
            journal.reseal(count)  # which leaves as it is what it is given nothing for
    source = open_sealer(settings).source
    gone = {key_id: number for key_id, number in used.items() if source.find(key_id) is None}
    for key_id, number in gone.items():
        hint = "bring the key file, the keyring or MCP_TASKS_KEY of then back; nothing else unseals them"
        yield Finding(
            "wrong", "keys", f"{number} sealed values need the key {key_id}, which is not here", hint
        )
    if used and not gone:
        yield Finding("well", "keys", f"here for {used.total()} sealed values")


def _tasks(store: Store) -> Iterator[Finding]:
    """Whether what is said to run has a supervisor that lives."""
    from mcp_tasks.executors.local import LocalExecutor
    from mcp_tasks.models import Running
    from mcp_tasks.ports import Ended, Gone

    executor = LocalExecutor()
    supervised, pending, gone = 0, 0, []
    for key in store.unfinished():
        task = store.load(key)
        if not isinstance(task.state, Running):
            pending += not task.is_final
            continue
        seen = executor.observe(store.run_folder(key, task.run))
        if isinstance(seen, Gone):
            gone.append(key.task_id)
        elif not isinstance(seen, Ended):
            supervised += 1
    executor.close()
    yield Finding("well", "tasks", f"{supervised} run under supervisors, {pending} wait")
    for task_id in gone[:_MOST_TOLD]:
        hint = "the next server, or `mcp-tasks poll`, marks it lost"
        yield Finding("look", "tasks", f"{task_id} has no supervisor any more", hint)


def _set_aside(directory: Path, told: str) -> Iterator[Finding]:
    """What lies in quarantine, without what has been told already by whoever has put it there just now."""
    from mcp_tasks.stores.disk.quarantine import QUARANTINE, set_aside_in

    try:
        found = [one for one in set_aside_in(directory) if f"{QUARANTINE}/{one.name}" not in told]
    except TasksError as error:
        yield Finding("wrong", "quarantine", error.message, error.hint)
        return
    if found:
        yield Finding(
            "look",
            "quarantine",
            f"{len(found)} broken files set aside",
            f"{directory / QUARANTINE} has them with the reasons; delete what you do not need",
        )
    for one in found:
        if one.original is None:
            yield Finding("look", "quarantine", f"{one.name}, of which no reason is left")
        else:
            yield Finding("look", "quarantine", f"{one.original}: {one.why}", f"kept as {one.name}")
