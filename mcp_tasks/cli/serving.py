"""`serve`: be an MCP server."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from mcp_tasks.cli.options import Dir, Session, Store

__all__ = ["register", "serve", "serve_on_stdio"]


_HTTP_ONLY: Final = {
    "host": "--host",
    "port": "--port",
    "uds": "--uds",
    "max_connections": "--max-connections",
    "no_token": "--no-token",
    "allowed_hosts": "--allowed-host",
    "allowed_origins": "--allowed-origin",
    "requests_per_second": "--requests-per-second",
    "max_request_bytes": "--max-request-bytes",
    "oauth_issuer": "--oauth-issuer",
    "oauth_audience": "--oauth-audience",
    "oauth_scopes": "--oauth-scopes",
    "oauth_jwks_url": "--oauth-jwks-url",
}
"""Settings that mean nothing to a server on stdio, with their flags."""


class Transport(StrEnum):
    """How clients reach the server."""

    stdio = "stdio"
    http = "http"
    sse = "sse"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)


def serve(
    transport: Annotated[Transport, typer.Option(help="How clients reach the server.")] = Transport.stdio,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="For http and sse (MCP_TASKS_HOST).")
    ] = None,
    port: Annotated[int | None, typer.Option(metavar="N", help="0 for a free one (MCP_TASKS_PORT).")] = None,
    uds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A socket file to listen at instead (MCP_TASKS_UDS).")
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(metavar="N", help="Connections that may be open over HTTP.")
    ] = None,
    store: Store = None,
    directory: Dir = None,
    session: Session = None,
    share: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="Work through a share (MCP_TASKS_SHARE hides it).")
    ] = None,
    tools: Annotated[
        str | None, typer.Option(metavar="SET", help="core, standard or full (MCP_TASKS_TOOLS).")
    ] = None,
    max_running: Annotated[
        int | None, typer.Option(metavar="N", help="Running tasks, over all servers of the store.")
    ] = None,
    queue_limit: Annotated[
        int | None, typer.Option(metavar="N", help="Waiting tasks, over all servers of the store.")
    ] = None,
    max_wait_ms: Annotated[
        int | None, typer.Option(metavar="MS", help="Longest wait of one call (MCP_TASKS_MAX_WAIT_MS).")
    ] = None,
    max_output_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Output of one task, like 500MiB; 0 for no limit.")
    ] = None,
    min_free_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of the disk, to be left free, like 1GiB.")
    ] = None,
    archive_days: Annotated[
        str | None, typer.Option(metavar="DAYS", help="Archive sessions unused for so long, or never.")
    ] = None,
    retention_days: Annotated[
        str | None, typer.Option(metavar="DAYS", help="Remove archives of that age, or never.")
    ] = None,
    journal_days: Annotated[
        str | None, typer.Option(metavar="DAYS", help="Fold journals unused for so long, or never.")
    ] = None,
    journal_limit: Annotated[
        int | None, typer.Option(metavar="N", help="Live messages of a journal; 0 for no limit.")
    ] = None,
    cleanup_hour: Annotated[
        int | None, typer.Option(metavar="HOUR", help="Local hour of the daily cleanup, 0 to 23.")
    ] = None,
    backups: Annotated[
        int | None, typer.Option(metavar="N", help="Backups that are kept (MCP_TASKS_BACKUPS).")
    ] = None,
    memory_tasks: Annotated[
        int | None, typer.Option(metavar="N", help="Finished tasks that the memory store keeps.")
    ] = None,
    memory_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The same in bytes, output and all, like 500MiB.")
    ] = None,
    memory_hours: Annotated[
        str | None, typer.Option(metavar="HOURS", help="After which it forgets a finished task, or never.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keys that seal secrets, not in the state directory.")
    ] = None,
    key_source: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="file or keyring (MCP_TASKS_KEY_SOURCE).")
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let everybody in; on loopback and --uds only.")
    ] = False,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            "--allowed-hosts",
            metavar="NAME",
            help="A name the server is reached by; repeat.",
        ),
    ] = None,
    allowed_origins: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-origin", "--allowed-origins", metavar="URL", help="Whose pages may call it; repeat."
        ),
    ] = None,
    requests_per_second: Annotated[
        int | None, typer.Option(metavar="N", help="Of one client over HTTP; 0 for no limit.")
    ] = None,
    max_request_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of one request over HTTP, like 16MiB.")
    ] = None,
    oauth_issuer: Annotated[
        str | None, typer.Option(metavar="URL", help="Take its access tokens (MCP_TASKS_OAUTH_ISSUER).")
    ] = None,
    oauth_audience: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Whom they are meant for: the URL of this server.")
    ] = None,
    oauth_scopes: Annotated[
        str | None, typer.Option(metavar="LIST", help="What they need besides mcp-tasks:read or :write.")
    ] = None,
    oauth_jwks_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The issuer's keys, where it does not say itself.")
    ] = None,
) -> None:
    """Serve MCP."""
    arguments: dict[str, Any] = {
        "host": host,
        "port": port,
        "uds": uds,
        "max_connections": max_connections,
        "store": store,
        "dir": directory,
        "session": session,
        "share": share,
        "tools": tools,
        "max_running": max_running,
        "queue_limit": queue_limit,
        "max_wait_ms": max_wait_ms,
        "max_output_bytes": max_output_bytes,
        "min_free_bytes": min_free_bytes,
        "archive_days": archive_days,
        "retention_days": retention_days,
        "journal_days": journal_days,
        "journal_limit": journal_limit,
        "cleanup_hour": cleanup_hour,
        "backups": backups,
        "memory_tasks": memory_tasks,
        "memory_bytes": memory_bytes,
        "memory_hours": memory_hours,
        "key_file": key_file,
        "key_source": key_source,
        "no_token": no_token or None,
        "allowed_hosts": ",".join(allowed_hosts) if allowed_hosts else None,
        "allowed_origins": ",".join(allowed_origins) if allowed_origins else None,
        "requests_per_second": requests_per_second,
        "max_request_bytes": max_request_bytes,
        "oauth_issuer": oauth_issuer,
        "oauth_audience": oauth_audience,
        "oauth_scopes": oauth_scopes,
        "oauth_jwks_url": oauth_jwks_url,
    }
    if transport is Transport.stdio:
        _refuse_for_http_only(arguments)
        serve_on_stdio(arguments)
    else:
        _serve_on_http(arguments, "/mcp" if transport is Transport.http else "/sse")


def _refuse_for_http_only(arguments: dict[str, Any]) -> None:
    """Raises InvalidArgument for flags that mean nothing on stdio; variables may be meant for others."""
    from mcp_tasks.errors import InvalidArgument

    given = [flag for name, flag in _HTTP_ONLY.items() if arguments[name] is not None]
    if given:
        go = "goes" if len(given) == 1 else "go"
        raise InvalidArgument(f"{', '.join(given)} {go} with HTTP, and this is stdio", "add --transport http")


def serve_on_stdio(arguments: dict[str, Any]) -> None:
    """Serve the client at stdin and stdout until it is gone."""
    import anyio

    from mcp_tasks.settings import Settings

    settings = Settings(**arguments)

    async def serve_client() -> None:
        from mcp_tasks.app import open_service
        from mcp_tasks.server.stdio import serve_stdio

        async with open_service(settings) as service:
            await serve_stdio(service, settings)

    anyio.run(serve_client)


def _serve_on_http(arguments: dict[str, Any], path: str) -> None:
    import anyio

    from mcp_tasks.http.credentials import refuse_open_door
    from mcp_tasks.settings import Settings

    settings = Settings(**arguments)
    refuse_open_door(settings)

    async def serve_clients() -> None:
        from mcp_tasks.app import open_service
        from mcp_tasks.http.serving import serve_http

        async with open_service(settings) as service:
            await serve_http(service, settings, path)

    anyio.run(serve_clients)
