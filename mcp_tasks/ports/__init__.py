"""The contracts between the use cases and what carries them out.

Everything here is synchronous and blocking: the service calls it from worker threads.
"""

from __future__ import annotations

from mcp_tasks.ports.archives import Archive, Archives
from mcp_tasks.ports.executors import (
    Ended,
    Executor,
    Gone,
    Launch,
    Observation,
    Reservation,
    Started,
    Starting,
    Supervised,
)
from mcp_tasks.ports.hooks import Hooks
from mcp_tasks.ports.journals import Journal
from mcp_tasks.ports.presence import Presence
from mcp_tasks.ports.secrets import Audit, Sealer
from mcp_tasks.ports.stores import Store

__all__ = [
    "Archive",
    "Archives",
    "Audit",
    "Ended",
    "Executor",
    "Gone",
    "Hooks",
    "Journal",
    "Launch",
    "Observation",
    "Presence",
    "Reservation",
    "Sealer",
    "Started",
    "Starting",
    "Store",
    "Supervised",
]
