"""The composition root: the only module that names concrete stores and executors."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from mcp_tasks.admission import Admission
from mcp_tasks.archives import SessionArchives
from mcp_tasks.clock import Clock
from mcp_tasks.errors import NotSupported, SessionNotFound
from mcp_tasks.executors.local import LocalExecutor
from mcp_tasks.handover import call_steward, ring
from mcp_tasks.holding import Holding
from mcp_tasks.keeping import Keeping
from mcp_tasks.launches import Defaults
from mcp_tasks.models import SessionKey
from mcp_tasks.parking import Limits, Parking
from mcp_tasks.ports import Journal, Sealer, Store
from mcp_tasks.presence import LockedPresence, SolePresence
from mcp_tasks.presenting import Presenter
from mcp_tasks.projects import Looks, ProjectCache
from mcp_tasks.reconcile import Reconciler
from mcp_tasks.redaction import secret_values
from mcp_tasks.retention import Cleanup, Rules
from mcp_tasks.sealing import open_sealer
from mcp_tasks.service import Desk, Service
from mcp_tasks.service.access import Access
from mcp_tasks.service.errands import run_errands
from mcp_tasks.service.journal.entries import end_entry
from mcp_tasks.service.sessions.connections import Connections
from mcp_tasks.service.sessions.ends import Expiry
from mcp_tasks.service.sessions.records import SessionRecords
from mcp_tasks.service.sessions.turns import Turns
from mcp_tasks.service.sessions.workspaces import Workspaces
from mcp_tasks.settings import Settings
from mcp_tasks.stores.audit_file import AuditFile, AuditInMemory
from mcp_tasks.stores.fallback import FallbackStore
from mcp_tasks.stores.memory.finished import Room
from mcp_tasks.stores.memory.temporary import TemporaryStore, remove_stale_folders
from mcp_tasks.transfer import Place
from mcp_tasks.waiting import Waiting

__all__ = ["open_place", "open_service", "open_store"]

log = logging.getLogger(__name__)

_THREADS = 32
_CLOSING_S = 2.5


def open_store(settings: Settings) -> Store:
    """Open the store that the settings name. Raises StoreUnavailable, NotSupported."""
    match settings.store:
        case "memory":
            return TemporaryStore(_room(settings))
        case "json":
            from mcp_tasks.stores.json.store import JsonFileStore

            return JsonFileStore(settings.dir)
        case "sqlite":
            from mcp_tasks.stores.sqlite.store import SqliteStore

            return SqliteStore(settings.dir)
        case other:
            raise NotSupported(f"the {other} store is not there yet", "use memory, json or sqlite")


def _room(settings: Settings) -> Room:
    hours = settings.memory_hours
    return Room(settings.memory_tasks, settings.memory_bytes, None if hours is None else hours * 3600)


def open_place(settings: Settings) -> Place:
    """Open store and journal of a state directory by themselves, to carry what is in them elsewhere.

    Raises:
        StoreUnavailable: It cannot be used.
        NotSupported: The memory store is its server's alone.
    """
    from mcp_tasks.stores.journal.file import JournalFile

    if settings.store == "memory":
        raise NotSupported(
            "the memory store lives in its server alone", "name a state directory of json or sqlite"
        )
    store = open_store(settings)
    journal = JournalFile(settings.dir, Clock(), sealer=open_sealer(settings))
    return Place(settings.dir, settings.store, store, journal)


@asynccontextmanager
async def open_service(  # noqa: PLR0915 - all parts are put together here, one after another
    settings: Settings, *, warm: bool = True, is_steward: bool = False
) -> AsyncIterator[Service]:
    """Everything wired together for as long as the block lasts; commands outlive it.

    With the memory store they do not: what still runs is cancelled at the end.

    Args:
        settings: Where everything is and how much of it there may be.
        warm: Get the launcher ready at once, in the background.
        is_steward: This process stands in for servers that are gone, so it calls nobody to do so.

    Raises:
        StoreUnavailable: The state directory cannot be used.
    """
    clock = Clock()
    store = await anyio.to_thread.run_sync(open_store, settings)
    both = FallbackStore(store, functools.partial(TemporaryStore, _room(settings)))
    sealer = open_sealer(settings)
    journal = _open_journal(settings, both, clock, sealer)
    both.tell_ends(lambda task: journal.note(end_entry(task, clock.now_ms())))
    executor = LocalExecutor(sealer=sealer)
    reconciler = Reconciler(both, executor, clock)
    steward: Callable[[], None] = _nobody
    bell: Callable[[], None] = _nobody
    if store.durable and not is_steward:
        steward, bell = functools.partial(call_steward, settings), functools.partial(ring, settings.dir)
    limits = Limits(settings.max_running, settings.queue_limit, settings.min_free_bytes)
    parking = Parking(both, executor, limits, call_steward=steward, ring=bell)
    holding = Holding(both, reconciler, clock)
    admission = Admission(both, executor, clock, limits=limits, parking=parking, holding=holding)
    presenter = Presenter(
        both,
        executor,
        clock,
        positions=admission.positions,
        max_running=limits.running,
        holding=holding,
        is_fallback=both.is_diverted,
    )
    defaults = Defaults(
        cwd=os.getcwd(),
        environment=dict(os.environ),
        max_output_bytes=settings.max_output_bytes,
        min_free_bytes=settings.min_free_bytes,
        lifeline=not store.durable,
        secret_values=secret_values(os.environ),
    )
    audit = AuditFile(settings.dir) if store.durable else AuditInMemory()
    records = SessionRecords(both, journal, audit, clock)
    presence = LockedPresence(settings.dir / "servers") if store.durable else SolePresence()
    connections = Connections(both, journal, presence, records, clock)
    archives = SessionArchives(
        store.slots.parent,
        both,
        journal,
        settle=reconciler.settle,
        left_alive=lambda task: bool(presenter.left_alive(task)),
        sealer=sealer,
    )
    projects = ProjectCache(Looks(settings.dir / "context") if store.durable else None, clock.now_ms)
    errands = [connections.mark_lost, Expiry(both, records, clock).close_due]
    if store.durable:
        cleanup = Cleanup(settings.dir, both, journal, archives=archives, audit=audit, rules=_rules(settings))
        errands.append(cleanup.run_when_due)
    failure: Exception | None = None
    try:
        async with anyio.create_task_group() as group:
            keeping = Keeping(
                both,
                executor,
                clock,
                reconciler=reconciler,
                admission=admission,
                parking=parking,
                group=group,
            )
            desk = Desk(
                store=both,
                executor=executor,
                clock=clock,
                admission=admission,
                keeping=keeping,
                presenter=presenter,
                reconciler=reconciler,
                waiting=Waiting(both, executor, reconciler),
                defaults=defaults,
                divert=both.divert,
                threads=anyio.CapacityLimiter(_THREADS),
                journal=journal,
                sealer=sealer,
                audit=audit,
                access=Access(both, clock),
                records=records,
                turns=Turns(),
                workspaces=Workspaces(records, sealer, defaults),
                connections=connections,
                journal_limit=settings.journal_limit,
                projects=projects,
                archives=archives,
            )
            keeping.start()
            if warm:
                group.start_soon(_try_to, executor.warm_up)
            group.start_soon(_try_to, remove_stale_folders)
            group.start_soon(run_errands, errands)
            service = Service(desk)
            group.start_soon(service.projects.attend)
            try:
                yield service
            except Exception as error:  # noqa: BLE001 - raised again below, as it was and not in a group
                failure = error
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSING_S):
                    await keeping.finish(both.diverted() if store.durable else both.unfinished())
                group.cancel_scope.cancel()
    finally:
        executor.close()
        projects.close()
        records.finish()
        presence.end()
        journal.close()
        both.close()
    if failure is not None:
        raise failure


def _open_journal(settings: Settings, store: Store, clock: Clock, sealer: Sealer) -> Journal:
    """The journal of all sessions; its file is opened with the first use."""
    from mcp_tasks.stores.journal import file as journal_file

    def rules_of(key: SessionKey) -> journal_file.Rules:
        try:
            session = store.load_session(key)
        except SessionNotFound:
            return journal_file.Rules(settings.journal_limit)
        limit = settings.journal_limit if session.journal_limit is None else session.journal_limit
        return journal_file.Rules(limit, session.seal_journal)

    if not store.durable:
        return journal_file.MemoryJournal(clock, sealer=sealer, rules_of=rules_of)
    return journal_file.JournalFile(settings.dir, clock, sealer=sealer, rules_of=rules_of)


def _rules(settings: Settings) -> Rules:
    return Rules(
        archive_days=settings.archive_days,
        journal_days=settings.journal_days,
        retention_days=settings.retention_days,
        hour=settings.cleanup_hour,
    )


async def _try_to(do: Callable[[], None]) -> None:
    """Do in the background what is good to have done, and what the first call that needs it does anyway."""
    try:
        await anyio.to_thread.run_sync(do)
    except Exception:
        log.warning("what was to be done in the background failed", exc_info=True)


def _nobody() -> None:
    """With the memory store, what is pending ends with the server anyway; and a steward needs no other."""
