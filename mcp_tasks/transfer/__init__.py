"""Sessions from place to place: migration between adapters, backups, restoration, verification, figures."""

from __future__ import annotations

from mcp_tasks.transfer.backups import Backup, all_backups, find_backup, make_backup, rotate
from mcp_tasks.transfer.bringing_back import check_backup, restore_backup
from mcp_tasks.transfer.checking import verify
from mcp_tasks.transfer.figures import figures
from mcp_tasks.transfer.migrating import Migrated, migrate
from mcp_tasks.transfer.places import OpenPlace, Place, adapter_of, refuse_nested
from mcp_tasks.transfer.repairing import Repaired, repair
from mcp_tasks.transfer.sessions import Seen, Totals

__all__ = [
    "Backup",
    "Migrated",
    "OpenPlace",
    "Place",
    "Repaired",
    "Seen",
    "Totals",
    "adapter_of",
    "all_backups",
    "check_backup",
    "figures",
    "find_backup",
    "make_backup",
    "migrate",
    "refuse_nested",
    "repair",
    "restore_backup",
    "rotate",
    "verify",
]
