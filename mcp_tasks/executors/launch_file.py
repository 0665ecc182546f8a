"""The file that keeps a launch until it is started: sealed, where a key can be had."""

from __future__ import annotations

import json
import logging
import threading

from mcp_tasks.errors import TasksError
from mcp_tasks.executors import wire
from mcp_tasks.executors.launch_format import from_file, to_file
from mcp_tasks.ports import Launch, Sealer

__all__ = ["LaunchFile"]

log = logging.getLogger(__name__)


class LaunchFile:
    """Writes and reads what is in such files. Arguments, environment and input are all sealed.

    Args:
        sealer: None where nothing is to be sealed.
    """

    def __init__(self, sealer: Sealer | None) -> None:
        self._sealer = sealer
        self._has_warned = False
        self._guard = threading.Lock()

    def written(self, launch: Launch) -> bytes:
        """The content of the file. A launch that cannot be sealed is kept all the same."""
        content = to_file(launch)
        if self._sealer is None:
            return content
        try:
            sealed = self._sealer.seal(content.decode())
        except TasksError as error:
            self._warn(error)
            return content
        return json.dumps({"v": wire.RECORD_VERSION, "sealed": sealed}).encode()

    def read(self, content: bytes) -> Launch:
        """The launch in a file, sealed or not.

        Raises:
            ValueError, KeyError, TypeError: It is no such file.
            StoreUnavailable: It cannot be unsealed.
        """
        record = json.loads(content)
        if not isinstance(record, dict) or "sealed" not in record:
            return from_file(content)
        sealed = record["sealed"]
        if record["v"] != wire.RECORD_VERSION or self._sealer is None or not isinstance(sealed, str):
            raise ValueError("this is no launch that can be read here")
        return from_file(self._sealer.unseal(sealed).encode())

    def renewed(self, content: bytes) -> bytes | None:
        """The content with the newest key; None where it needs none, or there is none. Raises as `read`."""
        record = json.loads(content)
        sealed = record.get("sealed") if isinstance(record, dict) else None
        if not isinstance(sealed, str) or self._sealer is None:
            return None
        text = self._sealer.renewed(sealed)
        return None if text is None else json.dumps({**record, "sealed": text}).encode()

    def _warn(self, error: TasksError) -> None:
        with self._guard:
            if self._has_warned:
                return
            self._has_warned = True
        log.warning("what pending tasks are to run is kept without being sealed: %s", error)
