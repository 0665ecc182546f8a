"""Posting to a URL, signed as Standard Webhooks has it (https://www.standardwebhooks.com, v1).

No redirect is followed, because it would carry what is told to somebody whom nobody has named, and no
answer is read but for its status.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import importlib.metadata
import time
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx2

from mcp_tasks.hooks.pace import LONGEST_MS
from mcp_tasks.hooks.telling import NotTold, Telling

__all__ = ["post", "signature"]

_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 15.0
_WHOLE_S: Final = 25.0
_PREFIX: Final = "whsec_"


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`.

    Args:
        secret: `whsec_` and base64, or any other text, whose bytes are the key then.
        message_id: Of the message; the same at each attempt.
        timestamp: Of the attempt, in seconds since the epoch.
        body: As it is posted.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode()}"


async def post(url: str, telling: Telling, secret: str | None) -> None:
    """Tell it to whoever listens there. Raises NotTold."""
    body, now = telling.body, int(time.time())
    headers = {
        "content-type": "application/json",
        "user-agent": f"mcp-tasks/{_version()}",
        "webhook-id": telling.message_id,
        "webhook-timestamp": str(now),
    }
    if secret is not None:
        headers["webhook-signature"] = signature(secret, telling.message_id, now, body)
    try:
        with anyio.fail_after(_WHOLE_S):
            # In a thread, because certificates are read from files.
            client = await anyio.to_thread.run_sync(_client, url)
            async with client, client.stream("POST", url, content=body, headers=headers) as answer:
                status, after = answer.status_code, answer.headers
    except TimeoutError:
        raise NotTold("no answer in time") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError, ValueError) as error:
        raise NotTold(type(error).__name__) from None  # its text may hold the URL
    _judge(status, after)


def _judge(status: int, headers: Mapping[str, str]) -> None:
    if 200 <= status < 300:
        return
    after = headers.get("retry-after", "")
    after_s = min(int(after[:9]), LONGEST_MS // 1000) if after.isascii() and after.isdigit() else 0
    # 410 is how a receiver says that it wants no more of it.
    raise NotTold(f"HTTP {status}", final=status == 410, after_s=after_s)


def _client(url: str) -> httpx2.AsyncClient:
    timeout = httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S)
    return httpx2.AsyncClient(
        verify=httpx2.create_ssl_context(),
        # A proxy is for what is far away: a loopback address would be its own there.
        trust_env=not _is_near(url),
        follow_redirects=False,
        timeout=timeout,
    )


def _is_near(url: str) -> bool:
    """Whether nothing leaves this machine on the way there."""
    host = (urlsplit(url).hostname or "").removesuffix(".")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _key(secret: str) -> bytes:
    if secret.startswith(_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            pass  # it only looks like one
    return secret.encode("utf-8", "surrogatepass")


def _version() -> str:
    try:
        return importlib.metadata.version("mcp-tasks")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "0"
