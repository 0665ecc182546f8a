"""Secrets at rest: texts that only the holder of a key can read, the key never beside them.

A sealed text is one line, `sealed1.<key id>.<base64>`: AES-256-GCM with a random nonce, and the part in
front is authenticated with it. The key comes from the environment (`MCP_TASKS_KEY`), from a file
outside of the state directory, or from the keyring of the system; see `mcp_tasks.sealing.sources`.
"""

from __future__ import annotations

from mcp_tasks.sealing.sealer import KeyedSealer, is_sealed, open_sealer

__all__ = ["KeyedSealer", "is_sealed", "open_sealer"]
