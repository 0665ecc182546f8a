"""The composition root: the only module that names concrete stores and executors."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from mcp_tasks.admission import Admission
from mcp_tasks.archives import LateArchives
from mcp_tasks.clock import Clock
from mcp_tasks.errors import NotSupported, SessionNotFound
from mcp_tasks.executors.local import LocalExecutor
from mcp_tasks.handover import call_steward, ring
from mcp_tasks.holding import Holding
from mcp_tasks.hooks import FileOutbox, Looking, MemoryOutbox, SigningSecret, Surroundings, TaskHooks
from mcp_tasks.keeping import Keeping
from mcp_tasks.launches import OURS, TASK_VARIABLE, Defaults
from mcp_tasks.models import Draft, SessionKey, Task, TaskKey
from mcp_tasks.parking import Limits, Parking
from mcp_tasks.ports import Archives, Hooks, Journal, Sealer, Store
from mcp_tasks.presence import LockedPresence, SolePresence
from mcp_tasks.presenting import Presenter
from mcp_tasks.projects import Looks, ProjectCache
from mcp_tasks.reconcile import Reconciler
from mcp_tasks.redaction import secret_values
from mcp_tasks.retention import Cleanup, Rules
from mcp_tasks.sealing import open_sealer
from mcp_tasks.service import Desk, Service
from mcp_tasks.service.access import Access
from mcp_tasks.service.errands import Errand, run_errands
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
from mcp_tasks.waiting import Waiting

if TYPE_CHECKING:
    from mcp_tasks.transfer import Place

__all__ = ["open_outbox", "open_place", "open_service", "open_store"]

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


def open_outbox(settings: Settings) -> FileOutbox:
    """What is to be told of the tasks of a state directory. Nothing is opened or made yet."""
    return FileOutbox(settings.dir / "hooks")


def open_place(settings: Settings) -> Place:
    """Open store and journal of a state directory by themselves, to carry what is in them elsewhere.

    Raises:
        StoreUnavailable: It cannot be used.
        NotSupported: The memory store is its server's alone.
    """
    from mcp_tasks.stores.journal.file import JournalFile
    from mcp_tasks.transfer import Place

    if settings.store == "memory":
        raise NotSupported(
            "the memory store lives in its server alone", "name a state directory of json or sqlite"
        )
    store = open_store(settings)
    journal = JournalFile(settings.dir, Clock(), sealer=open_sealer(settings))
    return Place(settings.dir, settings.store, store, journal)


@asynccontextmanager
async def open_service(
    settings: Settings, *, warm: bool = True, is_steward: bool = False
) -> AsyncIterator[Service]:
    """Everything wired together for as long as the block lasts; commands outlive it.

    With the memory store they do not: what still runs is cancelled at the end.

    Args:
        settings: Where everything is and how much of it there may be.
        warm: Get the launcher ready at once, in the background.
        is_steward: This process stands in for servers that are gone: it calls nobody to do so, and leaves
            what is done by the settings of a server, as the cleanup is, to servers.

    Raises:
        StoreUnavailable: The state directory cannot be used.
    """
    failure: Exception | None = None
    with ExitStack() as opened:
        base = await anyio.to_thread.run_sync(_open_base, settings, opened)
        queue = _queue(settings, base, is_steward=is_steward)
        async with anyio.create_task_group() as group:
            hooks = _hooks(settings, base, queue, lambda: keeping)
            keeping = Keeping(
                base.store,
                base.executor,
                base.clock,
                reconciler=base.reconciler,
                admission=queue.admission,
                parking=queue.parking,
                group=group,
                is_awaited=hooks.waiting,
            )
            try:
                archives = _archives(base, queue.presenter)
                desk = _desk(settings, base, queue, keeping, archives, hooks=hooks)
                service = Service(desk)
                keeping.start()
                if warm:
                    group.start_soon(_try_to, base.executor.warm_up)
                group.start_soon(_try_to, remove_stale_folders)
                group.start_soon(run_errands, _errands(settings, desk, None if is_steward else archives))
                group.start_soon(service.projects.attend)
                group.start_soon(hooks.attend)
                group.start_soon(service.watching.attend)
                yield service
            except Exception as error:  # noqa: BLE001 - raised again below, as it was and not in a group
                failure = error
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSING_S):
                    await keeping.finish(base.mortal())
                group.cancel_scope.cancel()
    if failure is not None:
        raise failure


@dataclass(frozen=True, slots=True)
class _Base:
    """What everything else stands on: where things are kept, what runs commands, what time it is.

    `opened` closes what has been opened, the last first.
    """

    opened: ExitStack
    clock: Clock
    store: FallbackStore
    sealer: Sealer
    journal: Journal
    executor: LocalExecutor
    reconciler: Reconciler

    def mortal(self) -> list[TaskKey]:
        """The tasks that end with this process."""
        return self.store.diverted() if self.store.durable else self.store.unfinished()


def _open_base(settings: Settings, opened: ExitStack) -> _Base:
    """Open store, journal and executor, to be closed by `opened`. Blocking."""
    clock = Clock()
    store = FallbackStore(open_store(settings), functools.partial(TemporaryStore, _room(settings)))
    opened.callback(store.close)
    sealer = open_sealer(settings)
    journal = _open_journal(settings, store, clock, sealer)
    opened.callback(journal.close)
    store.tell_ends(lambda task: journal.note(end_entry(task)))
    executor = LocalExecutor(sealer=sealer)
    opened.callback(executor.close)
    return _Base(opened, clock, store, sealer, journal, executor, Reconciler(store, executor, clock))


@dataclass(frozen=True, slots=True)
class _Queue:
    """Who runs, who waits and for what, and how that is told."""

    parking: Parking
    admission: Admission
    presenter: Presenter


def _queue(settings: Settings, base: _Base, *, is_steward: bool) -> _Queue:
    steward: Callable[[], None] = _nobody
    bell: Callable[[], None] = _nobody
    if base.store.durable and not is_steward:
        steward, bell = functools.partial(call_steward, settings), functools.partial(ring, settings.dir)
    limits = Limits(settings.max_running, settings.queue_limit, settings.min_free_bytes)
    parking = Parking(base.store, base.executor, limits, call_steward=steward, ring=bell)
    holding = Holding(base.store, base.reconciler, base.clock)
    admission = Admission(
        base.store, base.executor, base.clock, limits=limits, parking=parking, holding=holding
    )
    presenter = Presenter(
        base.store,
        base.executor,
        base.clock,
        positions=admission.positions,
        max_running=limits.running,
        holding=holding,
        is_fallback=base.store.is_diverted,
    )
    return _Queue(parking, admission, presenter)


def _desk(
    settings: Settings, base: _Base, queue: _Queue, keeping: Keeping, archives: Archives, *, hooks: Hooks
) -> Desk:
    """What the use cases work with."""
    store, executor, clock = base.store, base.executor, base.clock
    presence = LockedPresence(settings.dir / "servers") if store.durable else SolePresence()
    base.opened.callback(presence.end)
    audit = AuditFile(settings.dir) if store.durable else AuditInMemory()
    records = SessionRecords(store, base.journal, audit, clock)
    base.opened.callback(records.finish)
    projects = ProjectCache(Looks(settings.dir / "context") if store.durable else None, clock.now_ms)
    base.opened.callback(projects.close)
    defaults = _defaults(settings, base)
    return Desk(
        store=store,
        executor=executor,
        clock=clock,
        admission=queue.admission,
        keeping=keeping,
        presenter=queue.presenter,
        reconciler=base.reconciler,
        waiting=Waiting(store, executor, base.reconciler),
        defaults=defaults,
        divert=store.divert,
        threads=anyio.CapacityLimiter(_THREADS),
        journal=base.journal,
        sealer=base.sealer,
        audit=audit,
        access=Access(store, clock),
        records=records,
        turns=Turns(),
        workspaces=Workspaces(records, base.sealer, defaults),
        connections=Connections(store, base.journal, presence, records, clock),
        journal_limit=settings.journal_limit,
        projects=projects,
        archives=archives,
        hooks=hooks,
        in_memory=lambda: None if (usage := store.in_memory()) is None else asdict(usage),
    )


def _hooks(settings: Settings, base: _Base, queue: _Queue, keeping: Callable[[], Keeping]) -> TaskHooks:
    """What tells of tasks. Nothing is read before there is something to be told."""
    looking = Looking(base.reconciler, queue.presenter, base.clock)

    def note(draft: Draft) -> None:
        base.store.load_session(draft.session)  # one that is gone gets no journal
        base.journal.note(draft)

    def keep(task: Task) -> None:
        keeping().keep(task)

    def settled() -> None:
        keeping().look_around()

    surroundings = Surroundings(
        clock=base.clock,
        sealer=base.sealer,
        describe=looking.describe,
        look=looking.look,
        keep=keep,
        note=note,
        call_steward=queue.parking.have_steward,
        tell_steward=queue.parking.tell_steward,
        settled=settled,
        environment={name: value for name, value in os.environ.items() if name not in (*OURS, TASK_VARIABLE)},
    )
    given = settings.hook_secret.get_secret_value() if settings.hook_secret else None
    outbox = open_outbox(settings) if base.store.durable else MemoryOutbox()
    hooks = TaskHooks(outbox, surroundings, SigningSecret(settings.dir, given))
    base.store.tell_ends(hooks.ended)
    return hooks


def _defaults(settings: Settings, base: _Base) -> Defaults:
    return Defaults(
        cwd=os.getcwd(),
        environment=dict(os.environ),
        max_output_bytes=settings.max_output_bytes,
        min_free_bytes=settings.min_free_bytes,
        lifeline=not base.store.durable,
        secret_values=secret_values(os.environ),
    )


def _archives(base: _Base, presenter: Presenter) -> LateArchives:
    return LateArchives(
        base.store.slots.parent,
        base.store,
        base.journal,
        settle=base.reconciler.settle,
        left_alive=lambda task: bool(presenter.left_alive(task)),
        sealer=base.sealer,
    )


def _errands(settings: Settings, desk: Desk, archives: LateArchives | None) -> list[Errand]:
    """What is done for sessions now and then; without `archives`, what needs no settings of a server."""
    errands: list[Errand] = [
        desk.connections.mark_lost,
        Expiry(desk.store, desk.records, desk.clock).close_due,
    ]
    if desk.store.durable and archives is not None:
        cleanup = Cleanup(
            settings.dir,
            desk.store,
            desk.journal,
            archives=archives,
            audit=desk.audit,
            rules=_rules(settings),
        )
        errands.append(cleanup.run_when_due)
    return errands


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
