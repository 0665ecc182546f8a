"""The captured output of one run, read from its folder: positions, pieces, and what is gone.

A stream is the file `stdout` or `stderr` from its first byte on. Where the output limit keeps head and tail,
the tail is in segments `stdout.<position of the first byte as 20 digits>`, and the supervisor deletes old
segments while somebody reads: bytes between two pieces are gone, which is called a hole.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import closing
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from mcp_tasks.errors import InvalidArgument, StoreUnavailable

__all__ = ["STREAMS", "Cursor", "RunOutput", "Stream", "base36", "parse_base36"]

Stream: TypeAlias = Literal["stdout", "stderr"]
STREAMS: Final[tuple[Stream, Stream]] = ("stdout", "stderr")

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_NUMBER: Final = re.compile(r"0|[1-9a-z][0-9a-z]{0,11}", re.ASCII)
_SEGMENT: Final = re.compile(r"(stdout|stderr)(?:\.([0-9]{20}))?", re.ASCII)
# A FIFO or a device planted in the folder must not block or drive anything.
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
# Each attempt follows the loss of the oldest segment; more in a row than this is no race.
_ATTEMPTS: Final = 64


def base36(number: int) -> str:
    """Write a number that is not negative in digits and lower-case letters."""
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
        if not number:
            return text


def parse_base36(text: str) -> int | None:
    """Read what `base36` wrote, below 36 ** 12; None for anything else."""
    return int(text, 36) if _NUMBER.fullmatch(text) else None


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the output of a run: how many bytes of each stream have been read."""

    run: int
    stdout: int = 0
    stderr: int = 0

    def of(self, stream: Stream) -> int:
        """The position in one stream, in bytes."""
        return self.stdout if stream == "stdout" else self.stderr

    def encode(self) -> str:
        """Write the cursor as clients see it: short, and not for reading."""
        return f"{base36(self.run)}-{base36(self.stdout)}-{base36(self.stderr)}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `encode` wrote. Raises InvalidArgument for anything else."""
        fields = [parse_base36(field) for field in text.split("-", 3)] if len(text) < 64 else []
        match fields:
            case [int() as run, int() as stdout, int() as stderr] if run > 0:
                return cls(run, stdout, stderr)
        shown = text if len(text) <= 64 else text[:61] + "..."
        raise InvalidArgument(
            f"cursor {shown!r} is not one that this server gave",
            "give next_cursor of an earlier answer exactly as it was, or leave cursor out",
        )


class _Piece(NamedTuple):
    start: int
    end: int
    name: str
    modified_ns: int


class RunOutput:
    """Reads the output of one run. Keeps nothing open and nothing in memory; safe for many threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of_run(self, run: int) -> RunOutput:
        """The output of another run of the same task."""
        return RunOutput(self.folder.with_name(f"{self.folder.name.partition('.')[0]}.{run}"))

    def size(self, stream: Stream) -> int:
        """Bytes captured so far, those that are gone included; 0 where nothing was captured."""
        return max((piece.end for piece in self._pieces(stream)), default=0)

    def holes(self, stream: Stream) -> list[tuple[int, int]]:
        """The ranges (first byte, byte after the last) that were captured and are gone."""
        found = []
        reached = 0
        for piece in self._pieces(stream):
            if piece.start > reached:
                found.append((reached, piece.start))
            reached = max(reached, piece.end)
        return found

    def last_output_at(self) -> int | None:
        """When output was last written, in epoch milliseconds; None where there is none."""
        times = [
            piece.modified_ns
            for stream in STREAMS
            for piece in self._pieces(stream)
            if piece.end > piece.start
        ]
        return max(times) // 1_000_000 if times else None

    def read(self, stream: Stream, start: int, limit: int) -> tuple[int, bytes]:
        """Read at most `limit` bytes from `start` on, without crossing a hole.

        Returns:
            The position of the first byte returned, after `start` where `start` is in a hole, and the bytes:
            fewer than `limit` only before a hole or at the end of what is there.
        """
        for _ in range(_ATTEMPTS):
            begin = reached = start
            chunks: list[bytes] = []
            lost = False
            for piece in self._pieces(stream):
                if piece.end <= reached:
                    continue
                if piece.start > reached:
                    if chunks:
                        break
                    begin = reached = piece.start
                data = self._read_piece(piece, reached, limit - (reached - begin))
                if data is None:
                    lost = True
                    break
                if data:
                    chunks.append(data)
                reached += len(data)
                if reached - begin >= limit or reached < piece.end:
                    break
            if chunks or not lost:
                return begin, chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return start, b""

    def _pieces(self, stream: Stream) -> list[_Piece]:
        pieces = []
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    named = _SEGMENT.fullmatch(entry.name)
                    if named is None or named[1] != stream:
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if stat.S_ISREG(status.st_mode):
                        start = int(named[2] or "0")
                        pieces.append(_Piece(start, start + status.st_size, entry.name, status.st_mtime_ns))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(error) from error
        pieces.sort()
        return pieces

    def _read_piece(self, piece: _Piece, start: int, limit: int) -> bytes | None:
        """Read from one file; None where it has vanished since it was listed."""
        try:
            descriptor = os.open(self.folder / piece.name, _FLAGS)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(error) from error
        with closing(FileIO(descriptor, "rb")) as file:
            # Not past the size that was listed, or bytes might follow each other over a hole unseen.
            wanted = min(limit, piece.end - start)
            chunks: list[bytes] = []
            try:
                while wanted > 0:
                    data = os.pread(file.fileno(), wanted, start - piece.start)
                    if not data:
                        break
                    chunks.append(data)
                    start += len(data)
                    wanted -= len(data)
            except OSError as error:
                raise _unreadable(error) from error
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _unreadable(error: OSError) -> StoreUnavailable:
    # The path stays out of the message: it would reach clients.
    return StoreUnavailable(f"the stored output cannot be read ({error.strerror or 'input or output error'})")
