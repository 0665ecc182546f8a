"""Names of sessions and owners as folder names that never meet and always come back.

Some file systems ignore case, Windows reserves names like `con` and drops a dot at the end. So the
name of a folder has no capitals, is no reserved name and does not end in a dot.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256

from mcp_tasks.models import SESSION_NAME

__all__ = [
    "LONGEST_OWNER",
    "owner_folder",
    "owner_of_folder",
    "session_folder",
    "session_of_folder",
]

LONGEST_OWNER = 48
"""Bytes of an owner's folder name; with a task id (36) and a session (162) it fits in one name."""

_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9]|lpt[0-9])(\..*)?", re.ASCII)
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789._-")
_ESCAPED_OWNER = re.compile(r"(?:[a-z0-9._-]|%[0-9a-f]{2})*%?", re.ASCII)


@lru_cache(maxsize=4096)
def session_folder(session: str) -> str:
    """Folder name of a valid session name, at most 162 bytes.

    Lower case; where that lost capitals (or a dot ends the name) `^` and a hexadecimal number
    follow, whose bit i says that character i is a capital. A reserved name begins with `^`.
    """
    lowered = session.lower()
    capitals = sum(1 << place for place, letter in enumerate(session) if letter.isupper())
    tail = f"^{capitals:x}" if capitals or session.endswith(".") else ""
    head = "^" if _RESERVED.fullmatch(lowered) else ""
    return f"{head}{lowered}{tail}"


@lru_cache(maxsize=4096)
def session_of_folder(folder: str) -> str | None:
    """The session name that `session_folder` made this of, or None."""
    lowered, _, mask = folder.removeprefix("^").partition("^")
    if not re.fullmatch(r"[0-9a-f]{0,32}", mask, re.ASCII):
        return None
    capitals = int(mask or "0", 16)
    session = "".join(
        letter.upper() if capitals >> place & 1 else letter for place, letter in enumerate(lowered)
    )
    if not SESSION_NAME.fullmatch(session) or session_folder(session) != folder:
        return None
    return session


@lru_cache(maxsize=256)
def owner_folder(owner: str) -> str:
    """Folder name of any owner, at most LONGEST_OWNER bytes.

    Bytes outside `[a-z0-9._-]` become `%xx`. What would be too long becomes `^` and a hash, and
    is known again only from the records inside.
    """
    raw = owner.encode("utf-8", "surrogatepass")
    escaped = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in raw)
    if escaped.startswith(".") or _RESERVED.fullmatch(escaped):
        escaped = f"%{ord(escaped[0]):02x}{escaped[1:]}"
    if escaped.endswith("."):
        escaped = f"{escaped[:-1]}%2e"
    if len(escaped) > LONGEST_OWNER:
        return f"^{sha256(raw).hexdigest()[: LONGEST_OWNER - 1]}"
    return escaped or "%"


@lru_cache(maxsize=256)
def owner_of_folder(folder: str) -> str | None:
    """The owner that `owner_folder` made this of, or None (a hash, or no folder of ours)."""
    if not _ESCAPED_OWNER.fullmatch(folder):
        return None
    if folder == "%":
        return ""
    plain = re.sub("%([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), folder)
    try:
        owner = plain.encode("latin-1").decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return owner if owner_folder(owner) == folder else None
