"""Hearing of changes, where `watchfiles` is installed (the extra `mcp-tasks[watch]`).

What is remembered is checked whenever it is asked for, so nothing depends on this. It lets what is no
longer true go at once, instead of when somebody asks.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os

import anyio
import anyio.to_thread

from mcp_tasks.projects.cache import ProjectCache

__all__ = ["Watching", "watch"]

log = logging.getLogger(__name__)

_MOST_FOLDERS = 512
_STEP_MS = 250
_DEBOUNCE_MS = 1_500


class Watching:
    """Which folders are to be watched; told anew whenever something was looked at."""

    def __init__(self) -> None:
        self.folders: frozenset[str] = frozenset()
        self._news = anyio.Event()

    def follow(self, folders: frozenset[str]) -> None:
        """Watch these folders from now on."""
        if folders != self.folders:
            self.folders = folders
            self._news.set()
            self._news = anyio.Event()

    async def changed(self) -> None:
        """Wait until there are other folders to be watched."""
        await self._news.wait()


async def watch(cache: ProjectCache, watching: Watching, delay_s: float = 2.0) -> None:
    """Let go of looks that are no longer true, as long as this runs. Does nothing without `watchfiles`.

    Each folder is watched by itself and never what is below it, so that a large tree costs nothing.
    """
    while True:
        if not watching.folders:
            await watching.changed()
        # Who comes for one call only has left by then, and who looks at several projects has them all.
        await anyio.sleep(delay_s)
        if importlib.util.find_spec("watchfiles") is None:
            return
        async with anyio.create_task_group() as group:
            stop = anyio.Event()
            group.start_soon(_follow, cache, watching.folders, stop)
            try:
                await watching.changed()
            finally:
                stop.set()  # the thread that waits for changes hears of no cancellation


def _existing(folders: frozenset[str]) -> list[str]:
    return [folder for folder in sorted(folders) if os.path.isdir(folder)][:_MOST_FOLDERS]


async def _follow(cache: ProjectCache, folders: frozenset[str], stop: anyio.Event) -> None:
    from watchfiles import awatch

    places = await anyio.to_thread.run_sync(_existing, folders)
    if not places:
        return
    try:
        changes = awatch(
            *places,
            watch_filter=None,
            recursive=False,
            step=_STEP_MS,
            debounce=_DEBOUNCE_MS,
            stop_event=stop,
            ignore_permission_denied=True,
        )
        async for several in changes:
            paths = [path for _, path in several]
            await anyio.to_thread.run_sync(functools.partial(cache.recheck, paths))
    except Exception as error:  # noqa: BLE001 - a convenience, which must not take the server with it
        log.warning("projects are not watched: %s", error)
