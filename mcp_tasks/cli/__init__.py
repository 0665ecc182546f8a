"""The command `mcp-tasks`: the same things by hand that agents do over MCP, on the same store.

Exit codes: 0 well, 1 the command or task failed, 2 wrong usage or settings, 3 not found, 4 store unavailable.
"""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line of this process, and end the process."""
    from mcp_tasks.cli.program import run

    sys.exit(run())
