"""The bundled client: a server elsewhere, used as if it were here.

`service` has the methods that commands use, each an operation of the HTTP API (`mcp_tasks.api`);
`connection` asks, and asks again after a break; `waits`, `output` and `exporting` make of short answers what
may take long.
"""

from __future__ import annotations

from mcp_tasks.remote.asking import share_given
from mcp_tasks.remote.backoff import Patience
from mcp_tasks.remote.service import RemoteService, open_remote

__all__ = ["Patience", "RemoteService", "open_remote", "share_given"]
