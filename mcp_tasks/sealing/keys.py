"""Where keys come from: the environment, a file, the keyring of the system.

Each source may hold several keys: the newest seals, all of them unseal. Where `MCP_TASKS_KEY` is set,
that seals, and a key file that is there still unseals, so that one can go over from the file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mcp_tasks.errors import InvalidArgument, NotSupported, StoreUnavailable
from mcp_tasks.sealing.key_lock import key_lock
from mcp_tasks.settings import Settings, config_file

__all__ = [
    "KEY_BYTES",
    "EnvironmentKeys",
    "Key",
    "KeyRing",
    "KeySource",
    "ProcessKeys",
    "key_from_text",
    "key_source",
    "new_key",
    "text_of",
]

KEY_BYTES = 32
_SALT_BYTES = 16
_SHORTEST_PASSPHRASE = 12
_RING = ("mcp-tasks", "sealing keys")
_RING_FRESH_S = 30.0


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


def key_source(settings: Settings) -> KeySource:
    """The source that the settings name. Raises InvalidArgument for a file that must not be one."""
    from mcp_tasks.sealing.key_file import KeyFile

    if settings.store == "memory":
        return ProcessKeys()
    kept: KeySource
    if settings.key_source == "keyring":
        kept = KeyRing(config_file().parent / "keyring.lock")
    else:
        kept = KeyFile(_key_file(settings), forbidden=settings.dir)
    if settings.key is None:
        return kept
    return EnvironmentKeys(settings.key.get_secret_value(), kept, settings.dir / "key.salt")


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


def _key_file(settings: Settings) -> Path:
    if settings.key_file is not None:
        return settings.key_file
    usual = config_file().parent / "key"
    if usual.is_relative_to(settings.dir):
        # On macOS settings and state have one folder, where a key would lie beside what it seals.
        return Path.home() / ".config" / "mcp-tasks" / "key"
    return usual


class ProcessKeys:
    """A key for what lives no longer than this process: the memory store."""

    def __init__(self) -> None:
        self._keys = [new_key()]
        self._guard = threading.Lock()

    def newest(self) -> Key:
        """See `KeySource`."""
        return self._keys[-1]

    def find(self, key_id: str) -> Key | None:
        """See `KeySource`."""
        return next((key for key in self._keys if key.key_id == key_id), None)

    def add(self) -> Key:
        """See `KeySource`."""
        with self._guard:
            self._keys = [*self._keys, new_key()]
            return self._keys[-1]

    def older(self) -> list[str]:
        """See `KeySource`."""
        return [key.key_id for key in self._keys[:-1]]


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


class KeyRing:
    """Keys in the keyring of the system (extra `mcp-tasks[keyring]`).

    Args:
        lock: Held by whoever changes them, for a keyring has no way to say: only if nobody else has.
    """

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        self._keys: list[Key] = []
        self._read_at = float("-inf")
        self._guard = threading.Lock()

    def newest(self) -> Key:
        """See `KeySource`."""
        with self._guard:
            if time.monotonic() - self._read_at > _RING_FRESH_S:
                self._read()
            if not self._keys:
                with key_lock(self._lock):
                    self._read()  # another server may have been faster
                    if not self._keys:
                        self._write([new_key()])
            return self._keys[-1]

    def find(self, key_id: str) -> Key | None:
        """See `KeySource`."""
        with self._guard:
            for again in (False, True):
                if again or self._read_at == float("-inf"):
                    self._read()
                for key in self._keys:
                    if key.key_id == key_id:
                        return key
        return None

    def add(self) -> Key:
        """See `KeySource`."""
        with self._guard, key_lock(self._lock):
            self._read()
            key = new_key()
            self._write([*self._keys, key])
            return key

    def older(self) -> list[str]:
        """See `KeySource`."""
        with self._guard:
            self._read()
            return [key.key_id for key in self._keys[:-1]]

    def _read(self) -> None:
        text = _ask("get_password", *_RING) or ""
        keys = [key_from_text(word) for word in text.split()]
        if None in keys:
            raise StoreUnavailable(
                "the keyring holds something else under mcp-tasks", "restore it; nothing was changed"
            )
        self._keys = [key for key in keys if key is not None]
        self._read_at = time.monotonic()

    def _write(self, keys: list[Key]) -> None:
        _ask("set_password", *_RING, " ".join(text_of(key) for key in keys))
        self._keys = keys


def _ask(call: str, *arguments: str) -> str | None:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise NotSupported(
            "the keyring package is not installed",
            "pip install 'mcp-tasks[keyring]', or set MCP_TASKS_KEY_SOURCE=file",
        ) from None
    try:
        answer: str | None = getattr(keyring, call)(*arguments)
    except keyring.errors.NoKeyringError:
        raise NotSupported("this system has no keyring", "set MCP_TASKS_KEY_SOURCE=file") from None
    except keyring.errors.KeyringError as error:
        raise StoreUnavailable(
            f"the keyring does not answer ({type(error).__name__})", "unlock it, and try again"
        ) from error
    return answer
