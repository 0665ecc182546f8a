"""Keys that whoever starts a server gives it in `MCP_TASKS_KEY`."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from contextlib import suppress
from pathlib import Path

from mcp_tasks.errors import InvalidArgument, NotSupported
from mcp_tasks.sealing.key import KEY_BYTES, Key, KeySource, key_from_text

__all__ = ["EnvironmentKeys"]

_SALT_BYTES = 16
_SHORTEST_PASSPHRASE = 12


class EnvironmentKeys:
    """Keys, or one passphrase, that whoever starts the server gives it.

    A passphrase is stretched with scrypt and a salt, which is the key id of what it seals. So whatever
    was sealed carries all that is needed beside the passphrase.

    Args:
        given: Keys in base64, apart by commas, the newest last; anything else is one passphrase.
        kept: What unseals beside them.
        salt_file: Where servers of one store agree on a salt, no secret. Without it each has its own.
    """

    def __init__(self, given: str, kept: KeySource, salt_file: Path | None = None) -> None:
        parts = [key_from_text(part) for part in given.split(",")]
        keys = [part for part in parts if part is not None]
        self._keys = keys if len(keys) == len(parts) else []
        self._passphrase = None if self._keys else given.strip()
        if self._passphrase is not None and len(self._passphrase) < _SHORTEST_PASSPHRASE:
            raise InvalidArgument(
                "MCP_TASKS_KEY is too short",
                f"give 32 bytes in base64 (openssl rand -base64 32), or {_SHORTEST_PASSPHRASE} characters",
            )
        self._kept = kept
        self._salt_file = salt_file
        self._own: Key | None = None
        self._guard = threading.Lock()

    def newest(self) -> Key:
        """See `KeySource`."""
        with self._guard:
            if self._passphrase is None:
                return self._keys[-1]
            if self._own is None:
                self._own = self._stretched(_agreed_salt(self._salt_file))
                self._keys.append(self._own)
            return self._own

    def find(self, key_id: str) -> Key | None:
        """See `KeySource`."""
        with self._guard:
            for key in self._keys:
                if key.key_id == key_id:
                    return key
            if self._passphrase is not None and (salt := _salt_of(key_id)) is not None:
                self._keys.append(self._stretched(salt))
                return self._keys[-1]
        return self._kept.find(key_id)

    def add(self) -> Key:
        """See `KeySource`."""
        raise NotSupported(
            "the key comes from MCP_TASKS_KEY, so it is not made here",
            "put a new key behind the old one there, with a comma between, and start every server again",
        )

    def older(self) -> list[str]:
        """See `KeySource`."""
        return self._kept.older()

    def _stretched(self, salt: bytes) -> Key:
        secret = hashlib.scrypt(
            (self._passphrase or "").encode("utf-8", "surrogateescape"),
            salt=salt,
            n=2**15,
            r=8,
            p=1,
            maxmem=2**26,
            dklen=KEY_BYTES,
        )
        return Key(f"p{salt.hex()}", secret)


def _agreed_salt(path: Path | None) -> bytes:
    own = secrets.token_bytes(_SALT_BYTES)
    if path is None:
        return own
    try:
        # The hex digits in one write, and a file that is shorter is not heeded: it may be being written.
        with suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
                file.write(own.hex())
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return _salt_of(f"p{os.read(descriptor, _SALT_BYTES * 2).decode('ascii', 'replace')}") or own
        finally:
            os.close(descriptor)
    except OSError:
        return own


def _salt_of(key_id: str) -> bytes | None:
    try:
        salt = bytes.fromhex(key_id[1:]) if key_id.startswith("p") else b""
    except ValueError:
        return None
    return salt if len(salt) == _SALT_BYTES else None
