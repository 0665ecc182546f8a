from __future__ import annotations

import json

import pytest

from mcp_tasks.bench.report import as_json, print_table
from mcp_tasks.bench.samples import Limit, Measure, Samples

POLL = Measure(
    "poll",
    "poll, 1 finished task",
    "ms",
    Samples((1.0, 1.2, 1.4)),
    Samples((1.0, 1.0, 1.0)),
    "T, a trivial tool",
    Limit("ratio_at_most", 1.3),
    "a note",
)
SLOW = Measure("slow", "slow", "s", Samples((1234.5,)), limit=Limit("at_most", 6.0))
PLAIN = Measure("plain", "plain", "MB", Samples((0.5,)))


def test_the_json_has_each_value_with_its_floor_its_target_and_the_verdict() -> None:
    document = json.loads(as_json([POLL, PLAIN], {"running": "told on Linux only"}, quick=False))
    poll, plain = document["measures"]
    assert (poll["median"], poll["p95"], poll["samples"], poll["unit"]) == (1.2, 1.4, 3, "ms")
    assert poll["floor"] == {"title": "T, a trivial tool", "median": 1.0, "p95": 1.0, "samples": 3}
    assert (poll["ratio"], poll["met"]) == (1.2, True)
    assert poll["target"] == {"kind": "ratio_at_most", "number": 1.3}
    assert (plain["floor"], plain["ratio"], plain["target"], plain["met"]) == (None, None, None, None)
    assert document["not_measured"] == {"running": "told on Linux only"}
    assert document["machine"]["cores"] >= 1


def test_a_quick_run_gives_no_verdict() -> None:
    document = json.loads(as_json([POLL], {}, quick=True))
    assert document["quick"] is True
    assert document["measures"][0]["met"] is None


def test_the_table_shows_what_was_met_what_was_not_and_what_was_not_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table([POLL, SLOW, PLAIN], {"running": "told on Linux only"}, quick=False)
    shown = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
    assert rows["slow"][-5:] == ["s", "<=", "6", "s", "no"]
    assert "1.20 ms" in shown
    assert "<= 1.3 x floor" in shown
    assert "floor: T, a trivial tool; a note" in shown
    assert "1,234 s" in shown
    assert "not measured: running: told on Linux only" in shown


def test_the_table_of_a_quick_run_says_that_it_promises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([SLOW], {}, quick=True)
    shown = capsys.readouterr().out
    assert " no" not in shown.splitlines()[3]
    assert "promises no figures" in shown
