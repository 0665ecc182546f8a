"""The export of a session, fetched by page, whole and of one making."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

import anyio.to_thread

from mcp_tasks.errors import StoreUnavailable

__all__ = ["export_pieces"]

_IN_MEMORY: Final = 16 * 2**20
_PIECE: Final = 262_144
_ATTEMPTS: Final = 5


async def export_pieces(page: Callable[[int], Awaitable[dict[str, Any]]]) -> AsyncGenerator[str, None]:
    """The text of an export.

    A server keeps the text that it has made while it is read. One that was started again meanwhile makes it
    anew, and if something has happened in the session that is another one, of which the rest would not fit
    to what is there. So nothing is passed on before all of it is there.

    Args:
        page: Asks for the page that begins at a byte.

    Raises:
        StoreUnavailable: It was another text each time.
    """
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as whole:
        for _ in range(_ATTEMPTS):
            whole.seek(0)
            whole.truncate()
            if await _fetched(page, whole):
                break
        else:
            raise StoreUnavailable("the session changes faster than it can be exported", "try again later")
        whole.seek(0)
        rest = b""
        while data := await anyio.to_thread.run_sync(whole.read, _PIECE):
            end = _whole_characters(rest + data)
            piece, rest = (rest + data)[:end], (rest + data)[end:]
            yield piece.decode()


async def _fetched(
    page: Callable[[int], Awaitable[dict[str, Any]]], whole: tempfile.SpooledTemporaryFile[bytes]
) -> bool:
    """Fetch one text to its end; False where what came last is a part of another one."""
    offset, total = 0, None
    while True:
        answer = await page(offset)
        if total not in (None, answer["total_bytes"]) or answer["offset"] != offset:
            return False
        total = answer["total_bytes"]
        await anyio.to_thread.run_sync(whole.write, answer["text"].encode())
        if "next_offset" not in answer:
            return True
        offset = answer["next_offset"]


def _whole_characters(data: bytes) -> int:
    """Where the last character that is there as a whole ends (RFC 3629, 3)."""
    end = len(data)
    for back in range(1, min(4, end) + 1):
        byte = data[end - back]
        if byte & 0xC0 == 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return end if back >= length else end - back
        if byte < 0x80:
            return end
    return end
