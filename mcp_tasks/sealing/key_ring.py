"""Keys in the keyring of the system."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from mcp_tasks.errors import NotSupported, StoreUnavailable
from mcp_tasks.sealing.key import Key, key_from_text, new_key, text_of
from mcp_tasks.sealing.key_lock import key_lock

__all__ = ["KeyRing"]

_RING = ("mcp-tasks", "sealing keys")
_RING_FRESH_S = 30.0


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
