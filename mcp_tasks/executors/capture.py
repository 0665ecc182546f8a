"""The output of one run on its way from the command's pipes to files. Standard library only.

Each stream is a file named after it that starts at offset 0. Under `keep_tail` what comes after the
head goes to segments named `<stream>.<offset, 20 digits>`, of which the oldest are removed. `chunks`
holds one 16-byte record per piece of output (`CHUNK`): when it came, on which stream, how long it is.
"""

from __future__ import annotations

import contextlib
import os
import struct

from mcp_tasks.executors.writeback import begin_writeback

__all__ = ["CHUNK", "STREAMS", "Capture", "OutputFull"]

STREAMS = ("stdout", "stderr")
CHUNK = struct.Struct("<QII")

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
# Pieces of one stream within this time share a record in `chunks`, so that a chatty command does not
# write more index than output.
_MERGE_US = 50_000
_SPACE_CHECK_BYTES = 16 << 20
_SEGMENTS = 4
# Head and segments of both streams must have a byte each.
_LEAST_SEGMENTED = 4 * _SEGMENTS
# What has been written is sent to the disk in pieces of this size while the command runs on, so that
# nobody waits long for the rest at the end.
_WRITEBACK_BYTES = 16 << 20


class OutputFull(Exception):
    """The output can no longer be kept in full; the message is for the task's record."""


class Capture:
    """Writes both streams of a run into the folder `folder`, within its limits.

    Args:
        folder: Descriptor of the run folder.
        limit: Bytes over both streams; 0 means no limit.
        keep_tail: At the limit drop the middle instead of raising OutputFull; at least 16 bytes are kept.
        min_free: Bytes of the disk that must stay free.
    """

    def __init__(self, folder: int, limit: int, *, keep_tail: bool, min_free: int) -> None:
        self.sizes = [0, 0]
        self.kept = 0
        self._folder = folder
        self._limit = limit
        segmented = keep_tail and limit > 0
        self._head = max(limit, _LEAST_SEGMENTED) // 2 if segmented else limit
        self._segment = max(limit, _LEAST_SEGMENTED) // (4 * _SEGMENTS) if segmented else 0
        self._min_free = min_free
        self._unchecked = _SPACE_CHECK_BYTES
        self._segments: tuple[list[str], list[str]] = ([], [])
        self._room = [0, 0]
        # Files come with their first byte: a command that prints nothing costs none.
        self._files: list[int | None] = [None, None]
        self._in_file = [0, 0]
        self._sent = [0, 0]
        self._index: int | None = None
        self._index_broken = False
        self._pending: tuple[int, int, int] | None = None
        self.discarding = False

    def take(self, stream: int, data: memoryview, now_us: int) -> None:
        """Keep one piece of output that came `now_us` after the start.

        Raises OutputFull, after as many bytes as possible have been kept; from then on everything
        is discarded.
        """
        if self.discarding:
            return
        before = self.sizes[stream]
        try:
            self._check_space(len(data))
            self._store(stream, data)
        except OSError as error:
            self.discarding = True
            raise OutputFull(f"the output could not be written ({_name(error)})") from error
        except OutputFull:
            self.discarding = True
            raise
        finally:
            self._note(stream, self.sizes[stream] - before, now_us)

    def _store(self, stream: int, data: memoryview) -> None:
        while data:
            data = self._without_middle(stream, data)
            file, room = self._place(stream, len(data))
            if not room:
                raise OutputFull(f"the output reached its limit of {self._limit} bytes")
            # write(2) may take less than it was given: each round counts what is really there.
            written = os.write(file, data[:room])
            data = data[written:]
            self.sizes[stream] += written
            self.kept += written
            if self._segments[stream]:
                self._room[stream] -= written
            self._in_file[stream] += written
            if (ready := self._in_file[stream] - self._sent[stream]) >= _WRITEBACK_BYTES:
                begin_writeback(file, self._sent[stream], ready)
                self._sent[stream] += ready

    def _without_middle(self, stream: int, data: memoryview) -> memoryview:
        """Leave out what would be written only to be removed at once, or small segments would cost much."""
        surplus = len(data) - self._segment * _SEGMENTS
        if not self._segment or surplus <= 0 or (not self._segments[stream] and self.kept < self._head):
            return data
        self.sizes[stream] += surplus
        self._room[stream] = 0
        return data[surplus:]

    def _place(self, stream: int, wanted: int) -> tuple[int, int]:
        """The file that the next bytes go to, and how many of them."""
        if not self._limit:
            return self._open(stream), wanted
        if not self._segments[stream] and (head := self._head - self.kept) > 0:
            return self._open(stream), min(wanted, head)
        if not self._segment:
            return -1, 0
        if not self._segments[stream] or not self._room[stream]:
            self._next_segment(stream)
        return self._open(stream), min(wanted, self._room[stream])

    def _open(self, stream: int) -> int:
        file = self._files[stream]
        if file is None:
            file = self._files[stream] = os.open(STREAMS[stream], _CREATE, 0o600, dir_fd=self._folder)
        return file

    def _next_segment(self, stream: int) -> None:
        names = self._segments[stream]
        if len(names) == _SEGMENTS:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(names.pop(0), dir_fd=self._folder)
        name = f"{STREAMS[stream]}.{self.sizes[stream]:020d}"
        file = os.open(name, _CREATE, 0o600, dir_fd=self._folder)
        if (full := self._files[stream]) is not None:
            os.close(full)
        self._files[stream] = file
        self._in_file[stream] = self._sent[stream] = 0
        self._room[stream] = self._segment
        names.append(name)

    def _check_space(self, size: int) -> None:
        self._unchecked += size
        if self._min_free and self._unchecked >= _SPACE_CHECK_BYTES:
            self._unchecked = 0
            disk = os.fstatvfs(self._folder)
            free = disk.f_bavail * disk.f_frsize
            if free < self._min_free:
                raise OutputFull(
                    f"the disk has {free} bytes free, fewer than the {self._min_free} to be left free"
                )

    def _note(self, stream: int, size: int, now_us: int) -> None:
        if not size:
            return
        if self._pending is not None:
            began, other, before = self._pending
            if other == stream and now_us - began < _MERGE_US and before + size < 1 << 32:
                self._pending = (began, stream, before + size)
                return
            self.flush_index()
        self._pending = (now_us, stream, size)

    def flush_index(self) -> None:
        """Write the record that is still being merged. The index is a help, never a reason to fail."""
        if self._pending is None:
            return
        began, stream, size = self._pending
        self._pending = None
        if self._index_broken:
            return
        try:
            if self._index is None:
                self._index = os.open("chunks", _CREATE, 0o600, dir_fd=self._folder)
            written = os.write(self._index, CHUNK.pack(began, stream + 1, size))
            if written != CHUNK.size:
                os.ftruncate(self._index, os.fstat(self._index).st_size - written)
                self._index_broken = True
        except OSError:
            # Lengths after a gap would belong to other bytes: what is there is right as far as it goes.
            self._index_broken = True

    @property
    def index_waits(self) -> bool:
        """Whether a record is still being merged."""
        return self._pending is not None

    def sync(self) -> None:
        """Bring the output to disk. Raises OSError when the device refuses."""
        self.flush_index()
        for stream, file in enumerate(self._files):
            if file is None:
                continue
            _sync(file)
            if self._segments[stream]:
                for name in (STREAMS[stream], *self._segments[stream][:-1]):
                    self._sync_by_name(name)

    def _sync_by_name(self, name: str) -> None:
        try:
            file = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._folder)
        except FileNotFoundError:
            # The head may have been filled by the other stream alone.
            return
        try:
            _sync(file)
        finally:
            os.close(file)


def _sync(file: int) -> None:
    getattr(os, "fdatasync", os.fsync)(file)


def _name(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
