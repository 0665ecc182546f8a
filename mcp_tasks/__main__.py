"""`python -m mcp_tasks` is the command `mcp-tasks`."""

from __future__ import annotations

from mcp_tasks.cli import main

if __name__ == "__main__":
    main()
