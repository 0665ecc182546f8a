"""How each MCP client is told of this server."""

from __future__ import annotations

from mcp_tasks.clients.known import CLIENTS, Client, find_client, server_command
from mcp_tasks.clients.merging import Merged, merge_into, snippet

__all__ = ["CLIENTS", "Client", "Merged", "find_client", "merge_into", "server_command", "snippet"]
