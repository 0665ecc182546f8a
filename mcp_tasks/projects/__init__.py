"""What can be found out about the project that a folder belongs to, by reading alone.

Nothing is executed, no link is followed, and no file, however large or broken, does more harm than
to be named in the problems. What looks, `mcp_tasks.projects.discovery`, is imported with the first look.
"""

from __future__ import annotations

from mcp_tasks.projects.cache import Found, ProjectCache
from mcp_tasks.projects.changes import changes
from mcp_tasks.projects.folders import shown
from mcp_tasks.projects.looks import Looks
from mcp_tasks.projects.project import Declared, Language, Project, Vcs
from mcp_tasks.projects.watching import Watching, watch

__all__ = [
    "Declared",
    "Found",
    "Language",
    "Looks",
    "Project",
    "ProjectCache",
    "Vcs",
    "Watching",
    "changes",
    "shown",
    "watch",
]
