"""Many clients of an HTTP server at once, to see what the server is like for others meanwhile."""

from __future__ import annotations

import os
import random
import sys

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

__all__ = ["main"]

_LONGEST_S = 10.0
"""Beside two hundred others a client needs some seconds for its first call."""


def main() -> None:
    """Start, poll and leave in the middle of a call, without end: URL and number of clients are arguments."""
    url, clients = sys.argv[1], int(sys.argv[2])
    anyio.run(_all, url, clients)


async def _all(url: str, clients: int) -> None:
    chance = random.Random(1)  # noqa: S311 - when a client leaves is no secret
    begun = anyio.Event()
    async with anyio.create_task_group() as group:
        for _ in range(clients):
            group.start_soon(_one, url, chance, begun)
        await begun.wait()
        sys.stderr.write(f"listening on {url}\n")
        sys.stderr.flush()


async def _one(url: str, chance: random.Random, begun: anyio.Event) -> None:
    headers = {"Authorization": f"Bearer {os.environ['MCP_TASKS_TOKEN']}"}
    # Made once: what it loads for https takes longer than many calls.
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        while True:
            try:
                with anyio.move_on_after(chance.uniform(0, _LONGEST_S)):
                    async with Client(streamable_http_client(url, http_client=http)) as client:
                        await _work(client, begun)
            except Exception as error:  # noqa: BLE001 - what a client meets that leaves like this is its own matter
                await anyio.sleep(0.01)
                sys.stderr.write(f"{type(error).__name__}\n")


async def _work(client: Client, begun: anyio.Event) -> None:
    while True:
        started = await client.call_tool("run_command", {"command": "true", "wait_ms": 0})
        begun.set()
        view = started.structured_content or {}
        while view.get("state") in {"pending", "running"}:
            polled = await client.call_tool("poll_task", {"task_id": view["task_id"], "wait_ms": 1_000})
            view = polled.structured_content or {}


if __name__ == "__main__":
    main()
