"""The MCP server: the only place that knows the words of the wire."""
