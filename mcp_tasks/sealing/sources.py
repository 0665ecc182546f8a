"""Where keys come from: the environment, a file, the keyring of the system.

Each source may hold several keys: the newest seals, all of them unseal. Where `MCP_TASKS_KEY` is set,
that seals, and a key file that is there still unseals, so that one can go over from the file.
"""

from __future__ import annotations

import threading
from pathlib import Path

from mcp_tasks.sealing.environment_keys import EnvironmentKeys
from mcp_tasks.sealing.key import Key, KeySource, new_key
from mcp_tasks.sealing.key_file import KeyFile
from mcp_tasks.sealing.key_ring import KeyRing
from mcp_tasks.settings import Settings, config_file

__all__ = ["ProcessKeys", "key_source"]


def key_source(settings: Settings) -> KeySource:
    """The source that the settings name. Raises InvalidArgument for a file that must not be one."""
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
