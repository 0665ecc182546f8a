"""State directories as the commands for stores and archives open them: without a server's background work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_tasks.errors import InvalidArgument, NotSupported, PolicyDenied, TaskNotFound

if TYPE_CHECKING:
    from mcp_tasks.archives import SessionArchives
    from mcp_tasks.executors.local import LocalExecutor
    from mcp_tasks.models import Task
    from mcp_tasks.reconcile import Reconciler
    from mcp_tasks.sealing import KeyedSealer
    from mcp_tasks.settings import Settings
    from mcp_tasks.stores.audit_file import AuditFile
    from mcp_tasks.transfer import Place

__all__ = ["Opened", "backups_folder", "now_ms", "open_at", "opened", "refuse_share", "settings_of"]


@dataclass(frozen=True)
class Opened:
    """An open place with what is needed to look at its tasks and its archives."""

    settings: Settings
    place: Place
    archives: SessionArchives
    audit: AuditFile
    sealer: KeyedSealer
    executor: LocalExecutor
    reconciler: Reconciler

    def seen(self, task: Task) -> Task:
        """A task as it really is; nothing is written."""
        return self.reconciler.look_at(task).task

    def settle(self) -> None:
        """Write down what has ended by now, as a server does all the time."""
        for key in self.place.store.unfinished():
            with suppress(TaskNotFound):
                self.reconciler.settle(key)


def now_ms() -> int:
    """Wall clock, ms since the epoch."""
    return time.time_ns() // 1_000_000


def backups_folder(settings: Settings, given: Path | None) -> Path:
    """Where backups are: as given, or beside the state directory."""
    return given.expanduser().absolute() if given is not None else settings.dir.parent / "mcp-tasks-backups"


def refuse_share(settings: Settings) -> Settings:
    """The settings as they are, for what concerns more than one session.

    Raises:
        PolicyDenied: Everything is to be done through a share, which opens one session and nothing else.
    """
    if settings.share is not None:
        raise PolicyDenied(
            "this concerns the whole state directory, and a share opens one session of it",
            "ask the owner to do it; without MCP_TASKS_SHARE you do it in your own state directory",
        )
    return settings


def settings_of(directory: Path | None, store: str | None) -> Settings:
    """The settings for a state directory; without `store`, with the adapter that it remembers.

    Raises:
        NotSupported: Memory is meant, which no other process can look into.
        PolicyDenied: See `refuse_share`.
    """
    from mcp_tasks.settings import Settings
    from mcp_tasks.transfer import adapter_of

    settings = refuse_share(Settings(dir=directory, store=store))
    if store is None and (known := adapter_of(settings.dir)) is not None:
        settings = Settings(dir=directory, store=known)
    if settings.store == "memory":
        raise NotSupported(
            "the memory store lives in its server alone", "use --store json or sqlite, for the server too"
        )
    return settings


def open_at(folder: Path, adapter: str) -> Place:
    """Open or make the state directory of an adapter: what `transfer` calls OpenPlace."""
    from mcp_tasks.app import open_place
    from mcp_tasks.settings import Settings

    return open_place(Settings(dir=folder, store=adapter))


@contextmanager
def opened(settings: Settings, *, existing: bool = True) -> Iterator[Opened]:
    """Open a state directory for as long as the block lasts.

    Raises:
        InvalidArgument: There is none, and `existing` is true; nothing is made then.
    """
    from mcp_tasks.app import open_place
    from mcp_tasks.archives import SessionArchives
    from mcp_tasks.clock import Clock
    from mcp_tasks.executors.local import LocalExecutor
    from mcp_tasks.reconcile import Reconciler
    from mcp_tasks.sealing import open_sealer
    from mcp_tasks.stores.audit_file import AuditFile
    from mcp_tasks.transfer import adapter_of

    if existing and adapter_of(settings.dir) is None:
        raise InvalidArgument(f"there is no store in {settings.dir}", "give --dir, or run something first")
    place = open_place(settings)
    try:
        sealer = open_sealer(settings)
        executor = LocalExecutor(sealer=sealer)
        reconciler = Reconciler(place.store, executor, Clock())

        def left_alive(task: Task) -> bool:
            folder = place.store.run_folder(task.key, task.begun)
            return executor.lingers(folder) and bool(executor.background(folder))

        archives = SessionArchives(
            settings.dir,
            place.store,
            place.journal,
            settle=reconciler.settle,
            left_alive=left_alive,
            sealer=sealer,
        )
        yield Opened(settings, place, archives, AuditFile(settings.dir), sealer, executor, reconciler)
    finally:
        place.close()
