"""What webhooks are signed with: given to the process, or one secret of the state directory.

The file `hook_secret` is made with its first use, so that all processes of a state directory agree on what
is in it. In clear, because receivers have to be told it; 0600, as what it signs is nobody else's business.
"""

from __future__ import annotations

import base64
import logging
import re
import secrets
from pathlib import Path
from typing import Final

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.stores.disk import durable
from mcp_tasks.stores.disk.safe_folder import make_safe_folder

__all__ = ["SigningSecret"]

_NAME: Final = "hook_secret"
_RANDOM_BYTES: Final = 32
_MOST_BYTES: Final = 4_096
_FORM: Final = re.compile(r"whsec_[A-Za-z0-9+/]{32,}={0,2}")

_log = logging.getLogger(__name__)


class SigningSecret:
    """Blocking, for many threads and processes.

    Args:
        folder: The state directory; made where it is missing.
        given: The secret of this process, which wins over the one of the state directory.
    """

    def __init__(self, folder: Path, given: str | None = None) -> None:
        self._path = folder / _NAME
        self._given = given

    def current(self) -> str:
        """What is signed with from now on; made where there is none. Raises StoreUnavailable.

        The file is read each time: whoever has replaced it means all processes.
        """
        if self._given is not None:
            return self._given
        try:
            make_safe_folder(self._path.parent)
            kept = self._read()
            if kept is not None:
                return kept
            made = _new()
            # Of several that make it at the same time all take the one that was there first.
            if durable.create_exclusively(self._path, _line(made)):
                return made
            kept = self._read()
            if kept is None:
                raise StoreUnavailable("the file hook_secret was removed meanwhile", "try again")
            return kept
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"there is nothing to sign webhooks with: {error.message}",
                "set MCP_TASKS_HOOK_SECRET; mcp-tasks token --hooks --new makes the file anew",
            ) from error

    def replace(self) -> str:
        """Another one of the state directory; what is armed keeps the old one. Raises StoreUnavailable."""
        make_safe_folder(self._path.parent)
        made = _new()
        durable.write_durably(self._path, _line(made))
        return made

    def _read(self) -> str | None:
        try:
            text = durable.read_private(self._path, _MOST_BYTES, _log.warning).decode("ascii", "replace")
        except FileNotFoundError:
            return None
        if not _FORM.fullmatch(text.strip()):
            raise StoreUnavailable("the file hook_secret holds no secret", "mcp-tasks token --hooks --new")
        return text.strip()


def _new() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(_RANDOM_BYTES)).decode()}"


def _line(secret: str) -> bytes:
    return f"{secret}\n".encode()
