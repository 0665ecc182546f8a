"""Keys in a file of their own, outside of what they seal."""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path

from mcp_tasks.errors import InvalidArgument, StoreUnavailable
from mcp_tasks.sealing.key import Key, key_from_text, new_key, text_of
from mcp_tasks.sealing.key_lock import key_lock

__all__ = ["KeyFile"]

_HEAD = """\
# mcp-tasks: the keys that secrets are sealed with, one per line; the last one seals, all of them unseal.
# Keep a copy in a safe place: without its key nothing that was sealed can be read again.
"""
_MOST_BYTES = 65536
_NO_LINK = os.O_CLOEXEC | os.O_NOFOLLOW


class KeyFile:
    """Implements `KeySource`. What others wrote is seen at the next use.

    Args:
        path: Made with its first key, 0600, when that is needed.
        forbidden: Folder that the file must not lie in, for its contents lie beside what it seals.

    Raises:
        InvalidArgument: It lies there.
    """

    def __init__(self, path: Path, forbidden: Path | None = None) -> None:
        if forbidden is not None and _real(path).is_relative_to(_real(forbidden)):
            raise InvalidArgument(
                "the key file lies in the state directory, beside what it would protect",
                "set MCP_TASKS_KEY_FILE to a file elsewhere",
            )
        self._path = path
        self._keys: list[Key] = []
        self._seen: tuple[int, int, int] | None = None
        self._guard = threading.Lock()

    def newest(self) -> Key:
        """See `KeySource`."""
        with self._guard:
            self._refresh()
            if not self._keys:
                self._make()
            return self._keys[-1]

    def find(self, key_id: str) -> Key | None:
        """See `KeySource`."""
        with self._guard:
            self._refresh()
            return next((key for key in self._keys if key.key_id == key_id), None)

    def add(self) -> Key:
        """See `KeySource`."""
        key = new_key()
        with self._guard, self._locked():
            self._refresh()  # what is no key file is not written over
            self._replace([*self._lines(), _line(key)])
            self._refresh()
        return key

    def older(self) -> list[str]:
        """See `KeySource`."""
        with self._guard:
            self._refresh()
            return [key.key_id for key in self._keys[:-1]]

    def _refresh(self) -> None:
        """Read the file where it is not what was read last. The caller has the guard."""
        try:
            found = os.lstat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            self._keys, self._seen = [], None
            return
        except OSError as error:
            raise _unavailable(error) from error
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen == self._seen:
            return
        keys = []
        for line in self._lines():
            word = line.split(maxsplit=1)[0] if line.strip() else "#"
            if word.startswith("#"):
                continue
            key = key_from_text(word)
            if key is None:
                raise StoreUnavailable(
                    "the key file holds something that is no key", "restore it; nothing was changed"
                )
            keys.append(key)
        self._keys, self._seen = keys, seen

    def _lines(self) -> list[str]:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | _NO_LINK)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unavailable(error) from error
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise StoreUnavailable("the key file is no file of this user", "set MCP_TASKS_KEY_FILE")
            if found.st_mode & 0o077:
                raise StoreUnavailable(
                    f"the key file is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
                    f"chmod 600 {self._path}, and if somebody may have read it, mcp-tasks store rotate-key",
                )
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise StoreUnavailable(
                f"the key file is larger than {_MOST_BYTES} bytes",
                "take out keys that nothing needs any more",
            )
        return text.decode("utf-8", "replace").splitlines()

    def _make(self) -> None:
        with self._locked():
            self._refresh()  # another server may have been faster
            if self._keys:
                return
            self._replace([*self._lines(), _line(new_key())])
            self._refresh()

    def _replace(self, lines: list[str]) -> None:
        """Write the file anew, durably, or leave it as it is. The caller has the lock."""
        text = "".join(f"{line}\n" for line in lines)
        content = text if text.startswith("#") else _HEAD + text
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        try:
            with suppress(FileNotFoundError):
                os.unlink(temporary)  # of somebody who was killed: whoever writes has the lock
            with open(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600), "wb"
            ) as file:
                file.write(content.encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _unavailable(error) from error

    def _locked(self) -> AbstractContextManager[None]:
        return key_lock(self._path.with_name(f"{self._path.name}.lock"))


def _line(key: Key) -> str:
    return f"{text_of(key)} {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _unavailable(error: OSError) -> StoreUnavailable:
    if error.errno == errno.ELOOP:
        return StoreUnavailable("the key file is a link", "set MCP_TASKS_KEY_FILE to the file itself")
    reason = os.strerror(error.errno) if error.errno else "unknown error"
    return StoreUnavailable(f"the key file cannot be used ({reason})", "see MCP_TASKS_KEY_FILE")
