"""By which names a server may be addressed, and from which web pages.

A browser sends a page's requests to any address, and a name that its owner points to 127.0.0.1 leads them
here (DNS rebinding). Host then has the foreign name, and Origin that of the page, so both are looked at.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from mcp_tasks.errors import InvalidArgument

__all__ = ["Authority", "Names", "Origin", "is_loopback"]

_AUTHORITY: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253})))(?::(\d{1,5}))?"
)
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Authority:
    """A name or an address, with the port where one is given. An address is in its shortest form."""

    name: str
    port: int | None

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Read `name`, `name:port`, `[::1]:port`; None where it is nothing of the kind."""
        match = _AUTHORITY.fullmatch(text)
        if match is None:
            return None
        six, name, port = match.groups()
        if six is not None:
            try:
                name = str(ipaddress.IPv6Address(six))
            except ValueError:
                return None
        return cls(name.lower().removesuffix("."), None if port is None else int(port))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a page comes from (RFC 6454)."""

    scheme: str
    authority: Authority

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Read `scheme://name:port`; None where it is none, as `null` is."""
        scheme, separator, rest = text.partition("://")
        authority = Authority.read(rest)
        if not separator or not scheme.isascii() or not scheme.isalnum() or authority is None:
            return None
        scheme = scheme.lower()
        port = _PORTS.get(scheme) if authority.port is None else authority.port
        return cls(scheme, Authority(authority.name, port))

    def is_at(self, host: Authority) -> bool:
        """Whether the page was served by the very server that `host` names."""
        port = _PORTS.get(self.scheme) if host.port is None else host.port
        return self.scheme in _PORTS and self.authority == Authority(host.name, port)


class Names:
    """The names that are known.

    Args:
        hosts: `name`, which goes for any port, or `name:port`.
        origins: Of pages that may call, besides those that come from here.
        loopback: Whether names of this machine alone are known too; no foreign page can have those. The
            port is left open there, for it is another one behind a tunnel.

    Raises:
        InvalidArgument: One of them is none.
    """

    def __init__(self, hosts: Iterable[str], origins: Iterable[str], *, loopback: bool) -> None:
        self._hosts = frozenset(_host(each) for each in hosts)
        self._origins = frozenset(_origin(each) for each in origins)
        self._loopback = loopback

    def host(self, text: str) -> Authority | None:
        """Read a Host header; None where it names somebody else."""
        given = Authority.read(text)
        if given is None:
            return None
        known = given in self._hosts or Authority(given.name, None) in self._hosts
        return given if known or (self._loopback and is_loopback(given.name)) else None

    def origin(self, text: str, host: Authority) -> bool:
        """Whether a page of this origin may call."""
        given = Origin.read(text)
        return given is not None and (given in self._origins or given.is_at(host))


def is_loopback(name: str) -> bool:
    """Whether only this machine is meant by a name or an address."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _host(text: str) -> Authority:
    read = Authority.read(text)
    if read is None:
        raise InvalidArgument(
            f"{text!r} is no host name", "allowed_hosts are names like tasks.example.com or 192.0.2.7:8377"
        )
    return read


def _origin(text: str) -> Origin:
    read = Origin.read(text.removesuffix("/"))
    if read is None:
        raise InvalidArgument(
            f"{text!r} is no origin", "allowed_origins are like https://app.example.com, without a path"
        )
    return read
