from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (["--port", "0", "--uds", "x", "--no-token"], b"--port, --uds, --no-token go with HTTP"),
        (["--no-token"], b"--no-token goes with HTTP"),
        (["--allowed-host", "a", "--allowed-host", "b"], b"--allowed-host goes with HTTP"),
        (["--transport", "stdio", "--host", "::1"], b"--host goes with HTTP"),
        (["--max-request-bytes", "1MiB"], b"--max-request-bytes goes with HTTP"),
        (["--oauth-issuer", "https://x"], b"--oauth-issuer goes with HTTP"),
    ],
)
def test_flags_of_http_are_refused_on_stdio(tmp_path: Path, options: list[str], refused: bytes) -> None:
    done = CommandLine(tmp_path)("serve", *options, code=2)
    assert refused in done.stderr
    assert b"--transport http" in done.stderr
    assert not (tmp_path / "state").exists()


def test_variables_of_http_are_no_matter_to_a_server_on_stdio(tmp_path: Path) -> None:
    done = CommandLine(tmp_path)("serve", MCP_TASKS_PORT="1", MCP_TASKS_NO_TOKEN="1")
    assert done.stdout == b""
