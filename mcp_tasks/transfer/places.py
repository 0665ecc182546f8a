"""A place where sessions live: a state directory with its store and its journal."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mcp_tasks.errors import InvalidArgument, NotSupported, StoreUnavailable
from mcp_tasks.ports import Journal, Store
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.identity import adapter_by_records, read_identity

__all__ = ["OpenPlace", "Place", "adapter_of", "refuse_nested"]


@dataclass(frozen=True, slots=True)
class Place:
    """A store and a journal that are open, and the folder that they and the archives are in."""

    root: Path
    adapter: str
    store: Store
    journal: Journal

    def close(self) -> None:
        """Give back what is held."""
        try:
            self.journal.close()
        finally:
            self.store.close()


OpenPlace: TypeAlias = Callable[[Path, str], Place]
"""Opens the state directory of an adapter, or makes it. Raises StoreUnavailable, NotSupported."""


def adapter_of(root: Path) -> str | None:
    """Which adapter a state directory belongs to; None for one that is empty or not there.

    Where `store.json` is lost, its records tell.

    Raises:
        InvalidArgument: There is something else.
        StoreUnavailable: It cannot be told.
    """
    try:
        adapter = read_identity(durable.read_private(root / "store.json", 10_000))["adapter"]
    except FileNotFoundError:
        if (shown := adapter_by_records(root)) is not None:
            return shown
        with suppress(FileNotFoundError, NotADirectoryError):
            if os.listdir(root):
                raise InvalidArgument(f"{root} is no state directory", "name one, or a new folder") from None
        if os.path.lexists(root) and not root.is_dir():
            raise InvalidArgument(f"{root} is no folder", "name a state directory") from None
        return None
    except ValueError as error:
        if (shown := adapter_by_records(root)) is not None:
            return shown
        raise StoreUnavailable(f"store.json of {root} cannot be read") from error
    if adapter == "memory":
        raise NotSupported(
            "a memory store lives in its server alone", "start the server with --store json or sqlite"
        )
    return str(adapter)


def refuse_nested(one: Path, other: Path) -> None:
    """Raises InvalidArgument where one of two folders is, or lies in, the other."""
    first, second = Path(os.path.realpath(one)), Path(os.path.realpath(other))
    if first == second or first in second.parents or second in first.parents:
        raise InvalidArgument(f"{one} and {other} are not apart", "name two folders, neither in the other")
