"""The exit record of a run, as its supervisor writes it. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal

from mcp_tasks.executors import wire

__all__ = ["ExitRecord", "json_object", "signal_name"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_ROOM = 4096
_DRAFT = "exit.tmp"


class ExitRecord:
    """The only authority on how a run ended: written once, whole and durable, or not at all.

    Args:
        folder: Descriptor of the run folder.
    """

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._draft: int | None = None

    def make_room(self) -> None:
        """Take room on the disk now, so that one that fills up cannot lose the exit code. Raises OSError."""
        self._draft = self._new_draft()
        _take_room(self._draft)

    def write(self, **fields: str | int | bool | None) -> None:
        """Write the record into the run folder. Raises OSError when it could not be made durable."""
        text = json_object(v=wire.RECORD_VERSION, **fields)
        if self._draft is not None:
            draft, self._draft = self._draft, None
            try:
                self._publish(draft, text)
            except OSError:
                # Pages that a failed fsync(2) has let go of are not tried again: only a new file can tell.
                pass
            else:
                return
        self._publish(self._new_draft(), text)

    def _new_draft(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_DRAFT, dir_fd=self._folder)
        return os.open(_DRAFT, _CREATE, 0o600, dir_fd=self._folder)

    def _publish(self, draft: int, text: bytes) -> None:
        try:
            if os.pwrite(draft, text, 0) != len(text):
                raise OSError("the exit record was cut short")
            os.ftruncate(draft, len(text))
            os.fsync(draft)
        finally:
            os.close(draft)
        os.rename(_DRAFT, "exit.json", src_dir_fd=self._folder, dst_dir_fd=self._folder)
        try:
            os.fsync(self._folder)
            _fsync_parent(self._folder)
        except OSError:
            # It is true and everybody sees it by now. Servers copy it into a durable record of their own.
            return


def json_object(**fields: str | int | bool | None) -> bytes:
    """One line of JSON."""
    body = ", ".join(f'"{name}": {wire.string(value)}' for name, value in fields.items())
    return f"{{{body}}}\n".encode()


def signal_name(number: int | None) -> str | None:
    """SIGKILL and the like; what has no name of its own is SIG and the number."""
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def _take_room(file: int) -> None:
    try:
        os.posix_fallocate(file, 0, _ROOM)
    except (AttributeError, OSError) as error:
        # Not on this platform or file system (EOPNOTSUPP, EINVAL): written room does as well.
        if os.pwrite(file, b" " * _ROOM, 0) != _ROOM:
            raise OSError("there is no room for the exit record") from error


def _fsync_parent(folder: int) -> None:
    parent = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
