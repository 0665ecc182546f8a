"""The adapters of the `Store` contract in `mcp_tasks.ports`, and what they are built from."""
