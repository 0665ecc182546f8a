from __future__ import annotations

import logging
import os
import subprocess
import sys

from mcp_tasks.server.log import RedactingFormatter, StderrHandler


def record(text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("mcp_tasks", logging.INFO, __file__, 1, text, arguments, None)


def test_a_record_is_a_line() -> None:
    read, write = os.pipe()
    StderrHandler(write).emit(record("it is %s", "well"))
    assert os.read(read, 100) == b"it is well\n"
    os.close(read)
    os.close(write)


def test_a_full_pipe_costs_records_and_not_time() -> None:
    read, write = os.pipe()
    handler = StderrHandler(write)
    for _ in range(100):
        handler.emit(record("x" * 3_000))
    while len(os.read(read, 65_536)) == 65_536:
        continue
    handler.emit(record("again"))
    told, again = os.read(read, 65_536).decode().splitlines()[-2:]
    assert told.endswith("records dropped)")
    assert again == "again"
    os.close(read)
    os.close(write)


def test_a_closed_stderr_and_a_broken_record_are_borne() -> None:
    read, write = os.pipe()
    handler = StderrHandler(write)
    handler.emit(record("%d", "no number"))
    assert b"cannot be formatted" in os.read(read, 200)
    os.close(read)
    handler.emit(record("nobody listens"))
    os.close(write)


def test_warnings_of_anybody_and_news_of_ours_go_to_stderr() -> None:
    script = """
import logging
from mcp_tasks.server.log import log_to_stderr
log_to_stderr()
log_to_stderr()
logging.getLogger("mcp_tasks.x").info("ours")
logging.getLogger("other").info("theirs")
logging.getLogger("other").warning("important")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert [line.rsplit(": ")[-1] for line in done.stderr.splitlines()] == ["ours", "important"]
    assert done.stdout == ""


def test_secrets_are_taken_out_of_records_and_of_tracebacks() -> None:
    token = "ghp_" + "a1B2" * 9
    read, write = os.pipe()
    handler = StderrHandler(write)
    handler.setFormatter(RedactingFormatter(["of the environment"]))
    try:
        raise ValueError(f"{token} and hunter2")
    except ValueError:
        failed = logging.LogRecord(
            "x", logging.ERROR, __file__, 1, "of the environment %s", (token,), sys.exc_info()
        )
    failed.secret_values = ["hunter2"]
    handler.emit(failed)
    handler.emit(record(f"{'x' * 16_370} {token}"))

    told = os.read(read, 65_536).decode()
    assert "ValueError: [redacted] and [redacted]" in told
    assert "ERROR x: [redacted] [redacted]\n" in told
    assert "hunter2" not in told
    assert "ghp_" not in told
    os.close(read)
    os.close(write)


def test_what_others_write_into_a_record_makes_no_line_of_its_own_and_drives_no_terminal() -> None:
    formatter = RedactingFormatter()
    forged = record("no session %s", "x\n2026-01-01 ERROR forged \x1b[31m\r\u2028")
    text = formatter.format(forged)
    assert text.endswith(r"no session x\x0a2026-01-01 ERROR forged \x1b[31m\x0d\x2028")
    assert len(text.splitlines()) == 1


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("a\x1bb")
    except ValueError:
        failed = record("failed")
        failed.exc_info = sys.exc_info()
    lines = RedactingFormatter().format(failed).split("\n")
    assert len(lines) > 2
    assert lines[-1] == r"ValueError: a\x1bb"
