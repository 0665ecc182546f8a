"""Sessions put away: one compressed file each, a small one beside it that tells what is in it.

`<state dir>/archive/<owner>/<session>~<ms>.tar.gz` and `.json`. `SessionArchives` is what does it.
"""

from __future__ import annotations

from mcp_tasks.archives.folder import SessionArchives

__all__ = ["SessionArchives"]
