"""What happens to what nobody uses any more: archived, folded, and in the end removed, once a day."""

from __future__ import annotations

from mcp_tasks.retention.cleanup import Cleanup, Rules
from mcp_tasks.retention.history import CleanupRecord, read_record

__all__ = ["Cleanup", "CleanupRecord", "Rules", "read_record"]
