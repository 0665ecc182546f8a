"""Where hooks and what they are to tell are kept: a folder of the state directory.

Of each task there are two files. `ID.json` holds hooks and progress, and is written by whoever holds the
lock in `ID.lock`. `ID.end` holds how the task ended; it is written once, by whoever saw the end, without
any lock, so that it need not wait for somebody who is just telling something.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from pydantic_core import from_json, to_json

from mcp_tasks.errors import StoreBusy, StoreUnavailable
from mcp_tasks.models import TASK_ID
from mcp_tasks.stores.disk.durable import (
    create_exclusively,
    fsync_folder,
    make_private_folder,
    read_private,
    remove_stale_temporaries,
    unavailable,
    write_durably,
)
from mcp_tasks.stores.disk.locks import FolderGone, ProcessLock

if TYPE_CHECKING:
    from mcp_tasks.hooks.armed import Armed  # costs start-up time

__all__ = ["FileOutbox", "Outbox"]

log = logging.getLogger(__name__)

_ARMED: Final = ".json"
_END: Final = ".end"
_HELD: Final = ".lock"
_ARMING: Final = "arming.lock"
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_RESEAL_S: Final = 30.0


class Outbox(Protocol):
    """Keeps what is armed, by task id. Blocking, safe for many threads; all raise StoreUnavailable."""

    def listing(self) -> Mapping[str, bool]:
        """The tasks of which anything is to be told, and whether the end of each is known here."""
        ...

    def has(self, task_id: str) -> bool:
        """Whether anything is to be told of a task. Never raises."""
        ...

    def arming(self) -> AbstractContextManager[None]:
        """Somebody writes what is armed, and registers the tasks, for as long as the block lasts."""
        ...

    def nobody_arms(self) -> bool:
        """Whether nobody is in such a block, so that what is not registered by now never will be."""
        ...

    def take(self, task_id: str) -> ExitStack | None:
        """The right to tell something of a task, until it is closed; None while somebody else has it."""
        ...

    def read(self, task_id: str) -> Armed | None:
        """What is armed for a task; None where nothing is."""
        ...

    def write(self, armed: Armed) -> None:
        """Keep what is armed, durably. The first time in `arming`."""
        ...

    def end_of(self, task_id: str) -> Mapping[str, Any] | None:
        """The view of a task at its end, where it was kept."""
        ...

    def keep_end(self, task_id: str, view: Mapping[str, Any]) -> None:
        """Keep the view of a task at its end, durably. The first one stays.

        Raises:
            StoreUnavailable: It is kept in memory, and is gone with this process.
        """
        ...

    def remove(self, task_id: str) -> None:
        """Forget what is armed for a task. Never raises."""
        ...

    def sweep(self) -> None:
        """Remove what killed processes left, and what means nothing any more. Never raises."""
        ...


class FileOutbox:
    """An outbox that all processes of a state directory share. Its folder is made with the first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unwritten: dict[str, Mapping[str, Any]] = {}

    def listing(self) -> Mapping[str, bool]:
        """See `Outbox`."""
        try:
            names = frozenset(os.listdir(self._folder))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise unavailable("reading the outbox", error) from error
        named = sorted(name.removesuffix(_ARMED) for name in names if name.endswith(_ARMED))
        return {task_id: f"{task_id}{_END}" in names for task_id in named if TASK_ID.fullmatch(task_id)}

    def has(self, task_id: str) -> bool:
        """See `Outbox`."""
        return os.path.lexists(self._path(task_id, _ARMED))

    @contextmanager
    def arming(self) -> Iterator[None]:
        """See `Outbox`. A shared lock, which the kernel takes back from the dead."""
        if not os.path.isdir(self._folder) and make_private_folder(self._folder):
            fsync_folder(self._folder.parent)
        try:
            descriptor = os.open(f"{self._folder}/{_ARMING}", _LOCK, 0o600)
        except OSError as error:
            raise unavailable("locking the outbox", error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def nobody_arms(self) -> bool:
        """See `Outbox`."""
        try:
            descriptor = os.open(f"{self._folder}/{_ARMING}", _LOCK, 0o600)
        except OSError as error:
            raise unavailable("locking the outbox", error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def take(self, task_id: str) -> ExitStack | None:
        """See `Outbox`."""
        held = ExitStack()
        try:
            held.enter_context(ProcessLock(self._path(task_id, _HELD), 0.0).held())
        except (StoreBusy, FolderGone):
            return None
        return held

    def reseal(self, renewed: Callable[[str], str | None]) -> tuple[int, int]:
        """Seal with another key what is still to be told, while servers run.

        Args:
            renewed: A text sealed anew, None where it need not be. Raises StoreUnavailable.

        Returns:
            For how many tasks that was done, and for how many it could not be.
        """
        done = failed = 0
        for task_id in self.listing():
            try:
                with ProcessLock(self._path(task_id, _HELD), _RESEAL_S).held():
                    done += self._reseal(task_id, renewed)
            except StoreUnavailable as error:
                log.warning("what is to be told of task %s stays as it is: %s", task_id, error)
                failed += 1
        return done, failed

    def _reseal(self, task_id: str, renewed: Callable[[str], str | None]) -> bool:
        armed = self.read(task_id)
        if armed is None:
            self.remove(task_id)
            return False

        def anew(text: str | None) -> str | None:
            return None if text is None else renewed(text) or text

        hooks = tuple(replace(hook, target=anew(hook.target)) for hook in armed.hooks)
        changed = replace(armed, hooks=hooks, secret=anew(armed.secret))
        if changed == armed:
            return False
        self.write(changed)
        return True

    def read(self, task_id: str) -> Armed | None:
        """See `Outbox`. What cannot be read is put out of the way."""
        from mcp_tasks.hooks.armed import BrokenArmed, decode

        path = self._path(task_id, _ARMED)
        try:
            return decode(read_private(path))
        except FileNotFoundError:
            return None
        except BrokenArmed as error:
            log.warning(
                "what was to be told of task %s cannot be read, and is kept aside: %s", task_id, error
            )
            with suppress(OSError):
                os.replace(path, f"{path}.broken")
            return None

    def write(self, armed: Armed) -> None:
        """See `Outbox`."""
        from mcp_tasks.hooks.armed import encode

        write_durably(self._path(armed.key.task_id, _ARMED), encode(armed))

    def end_of(self, task_id: str) -> Mapping[str, Any] | None:
        """See `Outbox`."""
        try:
            view = from_json(read_private(self._path(task_id, _END)))
        except FileNotFoundError:
            return self._unwritten.get(task_id)
        except ValueError:
            return None  # it is told from the record instead
        return view if isinstance(view, dict) else None

    def keep_end(self, task_id: str, view: Mapping[str, Any]) -> None:
        """See `Outbox`."""
        try:
            create_exclusively(self._path(task_id, _END), to_json(dict(view)))
        except StoreUnavailable:
            # The disk is full, perhaps, and the task about to be cleared for that very reason.
            self._unwritten[task_id] = view
            raise

    def remove(self, task_id: str) -> None:
        """See `Outbox`. What is armed goes first: the rest means nothing without it."""
        for suffix in (_ARMED, _END, _HELD):
            with suppress(OSError):
                os.unlink(self._path(task_id, suffix))
        self._unwritten.pop(task_id, None)

    def sweep(self) -> None:
        """See `Outbox`. Whoever is killed while it removes something leaves the rest of it."""
        with suppress(OSError):
            for name in os.listdir(self._folder):
                task_id, dot, suffix = name.partition(".")
                # It is looked for once more, because it may have come after its place in the listing.
                if f"{dot}{suffix}" in (_END, _HELD) and TASK_ID.fullmatch(task_id) and not self.has(task_id):
                    with suppress(OSError):
                        os.unlink(f"{self._folder}/{name}")
        remove_stale_temporaries(self._folder)

    def _path(self, task_id: str, suffix: str) -> str:
        return f"{self._folder}/{task_id}{suffix}"
