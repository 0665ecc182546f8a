"""What a key is, and what a source of keys does."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["KEY_BYTES", "Key", "KeySource", "key_from_text", "new_key", "text_of"]

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the name that sealed texts know it by."""

    key_id: str
    secret: bytes = field(repr=False)


class KeySource(Protocol):
    """Where a sealer has its keys from. Safe for many threads and many processes."""

    def newest(self) -> Key:
        """The key that seals; made where there is none. Raises StoreUnavailable, NotSupported."""
        ...

    def find(self, key_id: str) -> Key | None:
        """The key of this id, where it is to be had. Raises StoreUnavailable, NotSupported."""
        ...

    def add(self) -> Key:
        """Make a new key, which seals from now on. Raises NotSupported where others make the keys."""
        ...

    def older(self) -> list[str]:
        """Ids of the keys that only unseal and are kept here."""
        ...


def key_from_text(text: str) -> Key | None:
    """A key written in base64 (standard or URL-safe); None where the text is no such thing."""
    try:
        secret = base64.b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return _key(secret) if len(secret) == KEY_BYTES else None


def new_key() -> Key:
    """A random key."""
    return _key(secrets.token_bytes(KEY_BYTES))


def text_of(key: Key) -> str:
    """The key in base64."""
    return base64.b64encode(key.secret).decode()


def _key(secret: bytes) -> Key:
    return Key(hashlib.blake2b(secret, digest_size=6, person=b"mcp-tasks key").hexdigest(), secret)
