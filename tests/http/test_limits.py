"""How much a real server takes of a client, whatever the SDK's own limits are."""

from __future__ import annotations

from pathlib import Path

from tests.http.server_process import answer, running_server


async def test_a_message_of_many_megabytes_is_taken_over_both_transports(tmp_path: Path) -> None:
    text = "x" * (6 * 2**20)
    with running_server(tmp_path / "state", "--max-request-bytes", "8MiB") as server:
        for transport in ("http", "sse"):
            async with server.mcp(transport=transport) as client:
                view = await answer(client, "run_command", command="wc -c", stdin=text, wait_ms=20_000)
                assert view["stdout"].strip() == str(len(text))


async def test_more_than_the_settings_allow_is_told_as_a_problem(tmp_path: Path) -> None:
    options = ("--max-request-bytes", "10KiB", "--requests-per-second", "2")
    with running_server(tmp_path / "state", *options) as server:
        async with server.http() as http:
            large = await http.post("/mcp", json={"x": "x" * 10_240})
            assert (large.status_code, large.json()["code"]) == (413, "request_entity_too_large")
            assert "10240 bytes" in large.json()["detail"]
            # A burst of ten is free, and two more with every second that this takes.
            while (refused := await http.get("/api/tasks")).status_code == 200:
                continue
        assert (refused.status_code, refused.json()["title"]) == (429, "Too Many Requests")
        assert refused.headers["Retry-After"] == "1"
        assert "Traceback" not in server.log.read_text()
