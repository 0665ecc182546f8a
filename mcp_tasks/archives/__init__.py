"""Sessions put away: one compressed file each, a small one beside it that tells what is in it.

`<state dir>/archive/<owner>/<session>~<ms>.tar.gz` and `.json`. `SessionArchives` is what does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp_tasks.archives.late import LateArchives

if TYPE_CHECKING:
    from mcp_tasks.archives.folder import SessionArchives

__all__ = ["LateArchives", "SessionArchives"]


def __getattr__(name: str) -> Any:
    """Load what packs and unpacks when it is first used: it costs start-up time."""
    if name != "SessionArchives":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mcp_tasks.archives import folder

    return folder.SessionArchives
