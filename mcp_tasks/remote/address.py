"""Where a server is, as it is given to `--server`: http://, https:// or unix:PATH."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from mcp_tasks.errors import InvalidArgument

__all__ = ["Address"]

_ROUTES: Final = ("/mcp", "/sse", "/api")
"""What may follow the address proper where it was copied from elsewhere, as from the line of `serve`."""

_HINT: Final = "give http://HOST:PORT, https://HOST or unix:PATH"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is.

    Attributes:
        shown: As it is told to people.
        base: What the paths of the HTTP API are added to.
        socket: The socket file to go through, instead of what `base` names.
    """

    shown: str
    base: str
    socket: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            InvalidArgument: It is none. The message does not repeat it, for somebody may have put a
                password into it.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            path = path.removeprefix("//") if path.startswith("///") else path
            if not path:
                raise InvalidArgument("the server's address names no socket file", _HINT)
            path = os.path.abspath(os.path.expanduser(path))
            return cls(f"unix:{path}", "http://localhost/api", path)
        try:
            parts = urlsplit(text)
            host, _ = parts.hostname, parts.port  # which looks at the port
        except ValueError:
            raise InvalidArgument("the server's address is no URL", _HINT) from None
        if parts.scheme not in ("http", "https") or not host:
            raise InvalidArgument("the server's address is not one of a server", _HINT)
        if parts.username is not None or parts.query or parts.fragment:
            raise InvalidArgument(
                "the server's address has a part that does not belong there",
                f"{_HINT}; the token goes into MCP_TASKS_TOKEN",
            )
        path = parts.path.rstrip("/")
        for route in _ROUTES:
            if path.endswith(route):
                path = path.removesuffix(route)
                break
        root = f"{parts.scheme}://{parts.netloc}{path}"
        return cls(root, f"{root}/api")

    @property
    def is_near(self) -> bool:
        """Whether nothing leaves this machine on the way there."""
        if self.socket is not None:
            return True
        host = urlsplit(self.base).hostname or ""
        try:
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def is_open_to_listeners(self) -> bool:
        """Whether somebody on the way there can read along."""
        return self.base.startswith("http:") and not self.is_near
