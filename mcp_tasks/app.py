"""The composition root: the only module that names concrete stores and executors."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from mcp_tasks.absent import NoAudit, NoJournal, NoSealer
from mcp_tasks.admission import Admission, Limits
from mcp_tasks.clock import Clock
from mcp_tasks.errors import NotSupported
from mcp_tasks.executors.local import LocalExecutor
from mcp_tasks.handover import call_steward
from mcp_tasks.keeping import Keeping
from mcp_tasks.launches import Defaults
from mcp_tasks.ports import Store
from mcp_tasks.presenting import Presenter
from mcp_tasks.reconcile import Reconciler
from mcp_tasks.service import Desk, Service
from mcp_tasks.service.access import Access
from mcp_tasks.service.session_records import SessionRecords
from mcp_tasks.service.turns import Turns
from mcp_tasks.settings import Settings
from mcp_tasks.stores.fallback import FallbackStore
from mcp_tasks.stores.temporary import TemporaryStore, remove_stale_folders
from mcp_tasks.waiting import Waiting

__all__ = ["open_service", "open_store"]

log = logging.getLogger(__name__)

_THREADS = 32
_CLOSING_S = 2.5


def open_store(settings: Settings) -> Store:
    """Open the store that the settings name. Raises StoreUnavailable, NotSupported."""
    match settings.store:
        case "memory":
            return TemporaryStore()
        case "json":
            from mcp_tasks.stores.json_files import JsonFileStore

            return JsonFileStore(settings.dir)
        case other:
            raise NotSupported(f"the {other} store is not there yet", "use memory or json")


@asynccontextmanager
async def open_service(settings: Settings, *, warm: bool = True) -> AsyncIterator[Service]:
    """Everything wired together for as long as the block lasts; commands outlive it.

    With the memory store they do not: what still runs is cancelled at the end.

    Args:
        settings: Where everything is and how much of it there may be.
        warm: Get the launcher ready at once, in the background.

    Raises:
        StoreUnavailable: The state directory cannot be used.
    """
    clock = Clock()
    store = await anyio.to_thread.run_sync(open_store, settings)
    both = FallbackStore(store, TemporaryStore)
    executor = LocalExecutor()
    reconciler = Reconciler(both, executor, clock)
    steward: Callable[[], None] = functools.partial(call_steward, settings) if store.durable else _nobody
    limits = Limits(settings.max_running, settings.queue_limit, settings.min_free_bytes)
    admission = Admission(both, executor, clock, limits, steward)
    presenter = Presenter(
        both, executor, clock, admission.positions, limits.running, is_fallback=both.is_diverted
    )
    defaults = Defaults(
        cwd=os.getcwd(),
        environment=dict(os.environ),
        max_output_bytes=settings.max_output_bytes,
        min_free_bytes=settings.min_free_bytes,
        lifeline=not store.durable,
    )
    journal, audit, sealer = NoJournal(), NoAudit(), NoSealer()
    records = SessionRecords(both, journal, audit, clock)
    failure: Exception | None = None
    try:
        async with anyio.create_task_group() as group:
            keeping = Keeping(both, executor, reconciler, admission, group)
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
            )
            keeping.start()
            if warm:
                group.start_soon(_try_to, executor.warm_up)
            group.start_soon(_try_to, remove_stale_folders)
            try:
                yield Service(desk)
            except Exception as error:  # noqa: BLE001 - raised again below, as it was and not in a group
                failure = error
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSING_S):
                    await keeping.finish(both.diverted() if store.durable else both.unfinished())
                group.cancel_scope.cancel()
    finally:
        executor.close()
        records.finish()
        both.close()
    if failure is not None:
        raise failure


async def _try_to(do: Callable[[], None]) -> None:
    """Do in the background what is good to have done, and what the first call that needs it does anyway."""
    try:
        await anyio.to_thread.run_sync(do)
    except Exception:
        log.warning("what was to be done in the background failed", exc_info=True)


def _nobody() -> None:
    """With the memory store, what is pending ends with the server anyway."""
