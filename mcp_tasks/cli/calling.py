"""From the arguments of a command to calls of the service: in this process, or of a server elsewhere."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from mcp_tasks.cli.options import SERVER, Place
from mcp_tasks.cli.places import refuse_share
from mcp_tasks.cli.printing import note

if TYPE_CHECKING:
    from mcp_tasks.cli.backends import Backend
    from mcp_tasks.service import Caller
    from mcp_tasks.settings import Settings

__all__ = ["call", "folder_named", "refuse_elsewhere", "settings_for", "text_of"]

T = TypeVar("T")

_INTERRUPTED = 130
"""128 and SIGINT, as shells have it."""


def settings_for(place: Place) -> Settings:
    """The settings with what the command line says about server, directory, store and session.

    Whoever names a directory or a store means this machine, whatever server the environment names.

    Raises:
        InvalidArgument: Both are named on the command line.
    """
    from mcp_tasks.errors import InvalidArgument
    from mcp_tasks.settings import Settings

    directory, store, session = place
    server = SERVER.get()
    is_here = directory is not None or store is not None
    if server is not None and is_here:
        raise InvalidArgument(
            "--server does not go with --dir or --store",
            "its own settings say where a server keeps its tasks",
        )
    settings = Settings(dir=directory, store=store, session=session, server=server)
    return settings.model_copy(update={"server": None}) if is_here else settings


def folder_named(path: str | Path, place: Place) -> str:
    """A folder of the machine where the work is done: from here on, or as it was given for one elsewhere."""
    return str(path) if settings_for(place).server is not None else os.path.abspath(path)


def refuse_elsewhere(place: Place, what: str) -> None:
    """Raises NotSupported where a server elsewhere is meant, which does not offer this."""
    from mcp_tasks.errors import NotSupported

    if settings_for(place).server is not None:
        raise NotSupported(
            f"{what} works on this machine and not through a server",
            "run it where the server is; --dir or --store means this machine",
        )


def text_of(data: bytes) -> str:
    """Input for a command, exactly as it was read. Raises InvalidArgument where it is not text."""
    from mcp_tasks.errors import InvalidArgument

    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(
            "the input is not UTF-8 text", "let the command read bytes from a file: run -- 'CMD < FILE'"
        ) from None


def call(
    place: Place,
    work: Callable[[Backend, Caller], Awaitable[T]],
    *,
    starts: bool = False,
    whole: bool = False,
) -> T:
    """Do something, here or on a server elsewhere, and come back when it is done.

    Args:
        place: Where, as given on the command line.
        work: What to do.
        starts: Whether a command may be started, so that it is worth getting the launcher ready.
        whole: Whether it concerns more than one session, so that no share lets anybody.

    Raises:
        TasksError: As the service does.
        NotSupported: The store does not outlive a process, so no other process's tasks can be in it.
    """
    import anyio

    settings = settings_for(place)
    if whole:
        refuse_share(settings)

    async def carried_out() -> T:
        from mcp_tasks.cli.backends import CHUNK_MS
        from mcp_tasks.models import DEFAULT_SESSION
        from mcp_tasks.service import Caller

        caller = Caller(
            owner=settings.owner,
            session=settings.session or DEFAULT_SESSION,
            named=settings.session is not None,
            max_wait_ms=CHUNK_MS,
            share=_share(settings),
        )
        async with _backend(settings, starts=starts) as backend:
            try:
                return await work(backend, caller)
            except Exception as error:  # noqa: BLE001 - raised again, outside of what would wrap it in a group
                failure = error
        raise failure

    try:
        return anyio.run(carried_out)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


def _share(settings: Settings) -> str | None:
    """The share by which everything is done; to a server elsewhere it can be the token itself."""
    if settings.server is not None:
        from mcp_tasks.remote import share_given

        return share_given(settings.share, settings.token)
    return settings.share.get_secret_value() if settings.share else None


@asynccontextmanager
async def _backend(settings: Settings, *, starts: bool) -> AsyncIterator[Backend]:
    """Who does the work, for as long as the block lasts."""
    from mcp_tasks.errors import NotSupported

    if settings.server is not None:
        from mcp_tasks.remote import open_remote

        async with open_remote(settings.server, token=settings.token, tell=note) as remote:
            yield remote
    elif settings.store == "memory":
        raise NotSupported(
            "the memory store lives in its server alone",
            "use json or sqlite, here and for the server",
        )
    else:
        from mcp_tasks.app import open_service
        from mcp_tasks.cli.backends import LocalBackend

        async with open_service(settings, warm=starts) as service:
            yield LocalBackend(service)
