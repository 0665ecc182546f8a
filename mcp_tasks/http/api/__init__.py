"""The HTTP API beside MCP: its routes, what comes in, what is answered, and what it streams.

`routes` goes by the table of operations; `reading` makes a request of what came in; `handlers` do what no
tool does; `files` and `streams` answer with bytes and events.
"""
