"""Serving over HTTP: MCP (Streamable HTTP and SSE), the HTTP API, and who may come in."""
