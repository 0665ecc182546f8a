"""Sealing and unsealing with the newest of several keys, and with any of them."""

from __future__ import annotations

import base64
import binascii
import errno
import os
import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.sealing.key import Key, KeySource
from mcp_tasks.sealing.sources import key_source
from mcp_tasks.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["KeyedSealer", "is_sealed", "key_id_of", "open_sealer"]

_FORM = re.compile(r"(sealed1\.([0-9a-z]{1,64}))\.([A-Za-z0-9_-]{38,}={0,2})", re.ASCII)
_NONCE_BYTES = 12


def open_sealer(settings: Settings) -> KeyedSealer:
    """What seals for this state directory. Nothing is read, made or imported before the first use.

    Raises:
        InvalidArgument: The settings name a key file that must not be one.
    """
    return KeyedSealer(key_source(settings))


def is_sealed(text: str) -> bool:
    """Whether a text has the form of a sealed one."""
    return _FORM.fullmatch(text) is not None


def key_id_of(sealed: str) -> str | None:
    """Which key a text was sealed with; None where it is not sealed."""
    match = _FORM.fullmatch(sealed)
    return match[2] if match else None


class KeyedSealer:
    """Implements `ports.Sealer`. Safe for many threads."""

    def __init__(self, source: KeySource) -> None:
        self.source = source
        self._ciphers: dict[str, AESGCM] = {}
        self._guard = threading.Lock()

    def seal(self, text: str) -> str:
        """See `ports.Sealer`. The first call makes the key where there is none."""
        key = self.source.newest()
        header = f"sealed1.{key.key_id}"
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher(key).encrypt(nonce, text.encode("utf-8", "surrogatepass"), header.encode())
        return f"{header}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def unseal(self, sealed: str) -> str:
        """See `ports.Sealer`."""
        match = _FORM.fullmatch(sealed)
        if match is None:
            raise StoreUnavailable("a sealed text is damaged", "restore it from a backup, or set it again")
        header, key_id, body = match.groups()
        key = self.source.find(key_id)
        if key is None:
            # Another process may well have it, so whoever looks at the cause takes it for passing.
            raise StoreUnavailable(
                f"the key {key_id} that a secret was sealed with is not here",
                "bring it back: MCP_TASKS_KEY, the key file or the keyring; or set the secret again",
            ) from PermissionError(errno.EACCES, "no key")
        from cryptography.exceptions import InvalidTag

        try:
            data = base64.urlsafe_b64decode(body)
            opened = self._cipher(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], header.encode())
            return opened.decode("utf-8", "surrogatepass")
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise StoreUnavailable(
                "a sealed text is not what was sealed", "restore it from a backup, or set it again"
            ) from error

    def renewed(self, sealed: str) -> str | None:
        """The text sealed with the newest key; None where it is already. Raises as `unseal` does."""
        if key_id_of(sealed) == self.source.newest().key_id:
            return None
        return self.seal(self.unseal(sealed))

    def renewed_values(self, sealed: Mapping[str, str]) -> dict[str, str] | None:
        """A map with its values sealed with the newest key; None where all are already."""
        renewed = {name: self.renewed(value) for name, value in sealed.items()}
        if not any(renewed.values()):
            return None
        return {name: renewed[name] or value for name, value in sealed.items()}

    def _cipher(self, key: Key) -> AESGCM:
        with self._guard:
            cipher = self._ciphers.get(key.key_id)
            if cipher is None:
                from cryptography.hazmat.primitives.ciphers.aead import AESGCM

                cipher = self._ciphers[key.key_id] = AESGCM(key.secret)
            return cipher
