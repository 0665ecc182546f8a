"""The state directory as a whole: whose it is, which adapter it belongs to, what was broken in it."""

from __future__ import annotations

import json
import logging
import os
import secrets
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mcp_tasks.codec import SCHEMA, NewerSchema
from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.identity import MARKS, adapter_by_records, read_identity
from mcp_tasks.stores.disk.mounts import refuse_network_file_system
from mcp_tasks.stores.disk.quarantine import explain
from mcp_tasks.stores.disk.removal import remove_tree

__all__ = ["StateFolder", "boot_id"]

_log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOST_PROBLEMS = 1000
_LONGEST_LABEL = 210
# What a state directory may hold before it has its store.json: the work of a process that was killed.
_OURS = frozenset(
    (
        "store",
        "sessions",
        "active",
        "pending",
        "held",
        "slots",
        "quarantine",
        "trash",
        "boot",
        "admission",
        "steward",
        "archive",
        "cleanup",
        "context",
        "transfer",
        "http_token",
        "hook_secret",
    )
)


def boot_id() -> str:
    """What is the same until this machine starts again."""
    if sys.platform == "linux":
        return _BOOT_ID.read_text(encoding="ascii").strip()
    import psutil

    return str(int(psutil.boot_time()))


class StateFolder:
    """An opened state directory. Safe for many threads and many processes.

    Attributes:
        made: Names of the folders that were not there.
        lifted_from: The older schema that the directory had until now.
    """

    def __init__(self, root: Path, adapter: str, folders: tuple[str, ...], now: Callable[[], float]) -> None:
        """Open the directory, make it where it is missing, and tidy it.

        Args:
            root: The state directory.
            adapter: Whose records lie in it, remembered in `store.json`.
            folders: Names of the folders right under the root.
            now: Seconds since the epoch.

        Raises:
            StoreUnavailable: Another user's, another adapter's, a newer version's, on a network,
                or it cannot be written. What is there is left untouched.
        """
        self.root = os.path.abspath(root)
        self._adapter = adapter
        self._now = now
        self._problems: dict[str, None] = {}
        self._guard = threading.Lock()
        self.lifted_from: int | None = None
        refuse_network_file_system(root)
        self._open_root()
        # Who the directory belongs to is settled before anything in it is touched.
        known = self._belongs_to_us()
        names = ("quarantine", "trash", *folders)
        self.made = frozenset(
            name for name in names if durable.make_private_folder(self.path(name), self.report)
        )
        if not known:
            self._claim()
        for place in (self.root, self.path("quarantine")):
            durable.remove_stale_temporaries(place, now())
        self._empty_trash()

    def path(self, *names: str) -> str:
        """A path below the root."""
        return "/".join((self.root, *names))

    def report(self, sentence: str) -> None:
        """Note a problem, once."""
        with self._guard:
            if sentence in self._problems or len(self._problems) >= _MOST_PROBLEMS:
                return
            self._problems[sentence] = None
        _log.warning("%s", sentence)

    def problems(self) -> list[str]:
        """What was reported since the directory was opened, oldest first."""
        with self._guard:
            return list(self._problems)

    def set_aside(self, path: str, why: str) -> bool:
        """Move what cannot be read to `quarantine/`, with a note beside it, and report it.

        The caller holds the lock under which `path` is written.

        Returns:
            Whether it was moved; False where somebody else had moved it before.
        """
        original = os.path.relpath(path, self.root)
        parts = [part for part in original.split(os.sep) if part != "sessions"]
        label = "~".join(parts[-2:])[:_LONGEST_LABEL]
        name = f"{int(self._now() * 1000)}-{secrets.token_hex(4)}-{label}"
        try:
            os.rename(path, self.path("quarantine", name))
        except FileNotFoundError:
            return False
        except OSError as error:
            self.report(f"{label} is broken ({why}) and could not be set aside: {error.strerror}")
            return False
        self._explain(name, label, original, why)
        return True

    def keep_aside(self, label: str, data: bytes, why: str) -> None:
        """Write what cannot be read to `quarantine/`, as `set_aside` moves it. Raises StoreUnavailable."""
        name = f"{int(self._now() * 1000)}-{secrets.token_hex(4)}-{label[:_LONGEST_LABEL]}"
        durable.write_durably(self.path("quarantine", name), data)
        self._explain(name, label, label, why)

    def _explain(self, name: str, label: str, original: str, why: str) -> None:
        explain(self.path("quarantine", name), original, why)
        self.report(f"{label} could not be read and was set aside as quarantine/{name}: {why}")

    def throw_away(self, path: str, label: str) -> str:
        """Take a file or folder out of the tree in one step.

        Returns:
            Where it lies now, to be removed with `durable.remove_tree`; what is forgotten there
            goes when the directory is opened the next time.

        Raises:
            OSError: It is still where it was.
        """
        place = self.path("trash", f"{label}-{secrets.token_hex(8)}")
        os.rename(path, place)
        return place

    def rebooted(self) -> bool:
        """Whether the machine has started again since `remember_boot` was called."""
        try:
            return durable.read_private(self.path("boot"), 200, self.report) != boot_id().encode()
        except (FileNotFoundError, durable.UnsafeFile):
            return True

    def remember_boot(self) -> None:
        """Note that all is in order since this start of the machine. Raises StoreUnavailable."""
        durable.write_durably(self.path("boot"), boot_id().encode())

    def _open_root(self) -> None:
        root = Path(self.root)
        missing = [place for place in (root, *root.parents) if not os.path.lexists(place)]
        for place in reversed(missing):
            durable.make_private_folder(place)
            durable.fsync_folder(place.parent)
        found = os.lstat(root)
        if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
            raise durable.UnsafeFile(
                "the state directory is a link or no folder", "set MCP_TASKS_DIR to the real folder"
            )
        if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
            raise durable.UnsafeFile(
                "the state directory belongs to another user",
                "set MCP_TASKS_DIR to a folder of your own, or run as its owner",
            )

        self._refuse_foreign(found)

    def _refuse_foreign(self, found: os.stat_result) -> None:
        """Leave a folder alone that has another purpose. It would be closed to others, and filled."""
        if os.path.lexists(self.path("store.json")) or self._lost_identity():
            return
        names = [] if adapter_by_records(self.root) is not None else os.listdir(self.root)
        foreign = [name for name in names if name.lstrip(".").split(".")[0] not in _OURS]
        if foreign or found.st_mode & (stat.S_ISVTX | stat.S_IWOTH):
            raise durable.UnsafeFile(
                "the folder is used for something else, or by everybody", "set MCP_TASKS_DIR to a new folder"
            )

    def _lost_identity(self) -> bool:
        """Whether a process was killed between setting a broken `store.json` aside and writing a new one."""
        with suppress(OSError):
            return any(name.endswith("-store.json") for name in os.listdir(self.path("quarantine")))
        return False

    def _belongs_to_us(self) -> bool:
        """Whether `store.json` names us; False where there is none. Raises StoreUnavailable."""
        path = self.path("store.json")
        try:
            data = durable.read_private(path, 10_000, self.report)
        except FileNotFoundError:
            self._refuse_other_adapter("it is missing")
            durable.make_private_folder(self.root, self.report)
            if adapter_by_records(self.root) == self._adapter:
                self.report("store.json was missing, and was written anew by the records that are there")
            return False
        except durable.UnsafeFile as error:
            return self._forget_identity(error.message)
        try:
            identity = read_identity(data)
        except ValueError as error:
            return self._forget_identity(str(error))
        if identity["schema"] > SCHEMA:
            raise NewerSchema("the state directory", identity["schema"], SCHEMA)
        if identity["adapter"] != self._adapter:
            theirs = repr(identity["adapter"])[:40]
            raise StoreUnavailable(
                f"the state directory is that of the store {theirs}, not {self._adapter!r}",
                "set MCP_TASKS_STORE to that store, or MCP_TASKS_DIR to another folder",
            )
        durable.make_private_folder(self.root, self.report)
        if identity["schema"] < SCHEMA:
            # From now on it may hold what an older program cannot read, so that one must refuse it.
            lifted = json.dumps({**identity, "schema": SCHEMA}).encode()
            durable.write_durably(path, lifted, previous=data)
            self.lifted_from = identity["schema"]
        return True

    def _forget_identity(self, why: str) -> bool:
        # With records of ours below there is no doubt whose directory it is.
        if not os.path.isdir(self.path("sessions")):
            raise StoreUnavailable(
                f"store.json cannot be read ({why}), so nobody can tell whose state directory this is",
                "restore store.json, or set MCP_TASKS_DIR to another folder",
            )
        self._refuse_other_adapter(why)
        durable.make_private_folder(self.root, self.report)
        durable.make_private_folder(self.path("quarantine"), self.report)
        self.set_aside(self.path("store.json"), why)
        return False

    def _refuse_other_adapter(self, why: str) -> None:
        """Without an identity: what another adapter made would seem empty, and its output left over."""
        for adapter, name in MARKS.items():
            if adapter != self._adapter and os.path.lexists(self.path(name)):
                raise StoreUnavailable(
                    f"store.json cannot be read ({why}), and the directory looks like one of {adapter!r}",
                    f"set MCP_TASKS_STORE to {adapter}, or restore store.json",
                )

    def _claim(self) -> None:
        identity = json.dumps({"schema": SCHEMA, "adapter": self._adapter}).encode()
        if not durable.create_exclusively(self.path("store.json"), identity):
            self._belongs_to_us()  # another process was faster; it may have been another adapter

    def _empty_trash(self) -> None:
        with suppress(OSError):
            for name in os.listdir(self.path("trash")):
                # Another process may be removing the same at this moment: then one of us is done.
                with suppress(StoreUnavailable):
                    remove_tree(self.path("trash", name))
