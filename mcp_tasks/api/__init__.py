"""The HTTP API as a description: its operations, problems and paths, for server, client and OpenAPI alike."""
