"""Archives of a place, with stand-ins for what only a server knows."""

from __future__ import annotations

from mcp_tasks.archives import SessionArchives
from mcp_tasks.transfer import Place
from tests.stores.journals import Scrambler

__all__ = ["archives_of"]


def archives_of(place: Place, *, left_alive: bool = False) -> SessionArchives:
    """Archives whose tasks are as their records say."""
    return SessionArchives(
        place.root,
        place.store,
        place.journal,
        settle=place.store.load,
        left_alive=lambda _task: left_alive,
        sealer=Scrambler(),
    )
