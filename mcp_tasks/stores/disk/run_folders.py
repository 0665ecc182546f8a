"""Where a run folder lies below the root of a store, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from mcp_tasks.errors import StoreUnavailable, TaskNotFound
from mcp_tasks.models import SESSION_NAME, TASK_ID, SessionKey, TaskKey
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.folder_names import owner_folder, session_folder

__all__ = ["make_run_folder", "run_folder", "session_place"]


def session_place(root: str, key: SessionKey) -> Path:
    """`<root>/sessions/<owner>/<session>`, of a session whose name has been checked."""
    return Path(root, "sessions", owner_folder(key.owner), session_folder(key.session))


def run_folder(root: str, key: TaskKey, run: int) -> Path:
    """`<root>/sessions/<owner>/<session>/runs/<task id>.<run>`. Raises TaskNotFound for what cannot be."""
    return Path(root, *_way(key), f"{key.task_id}.{int(run)}")


def make_run_folder(
    root: str,
    key: TaskKey,
    run: int,
    report: durable.Report | None = None,
    making: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Path:
    """Make a run folder, and what is missing above it, for its owner only; it may be there already.

    Args:
        root: Must exist.
        key: The task, registered or not.
        run: Its number, from 1.
        report: Told in a sentence when wider modes had to be narrowed.
        making: Held while the folder of a session is made.

    Raises:
        TaskNotFound: The names cannot be.
        UnsafeFile: A step on the way, or the folder, is a link, a file or another user's.
        StoreUnavailable: The kernel refused.
    """
    way = _way(key)
    folder = run_folder(root, key, run)
    try:
        durable.real_folder(root, *way)
        durable.make_private_folder(folder, report)
    except (FileNotFoundError, StoreUnavailable) as error:
        # There was none, or the session was deleted in this moment.
        if not isinstance(error.__cause__ or error, FileNotFoundError):
            raise
        with making():
            for place in _steps(root, way):
                durable.make_private_folder(place, report)
            durable.make_private_folder(folder, report)
    return folder


def _steps(root: str, way: tuple[str, ...]) -> Iterator[str]:
    for name in way:
        root = f"{root}/{name}"
        yield root


def _way(key: TaskKey) -> tuple[str, ...]:
    if not TASK_ID.fullmatch(key.task_id) or not SESSION_NAME.fullmatch(key.session):
        raise TaskNotFound(key.task_id)
    return "sessions", owner_folder(key.owner), session_folder(key.session), "runs"
