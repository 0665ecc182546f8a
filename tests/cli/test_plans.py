"""`plan` and what `run` says about when a task starts, as a person or a script uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CommandLine


def write(place: Path, plan: Any) -> str:
    file = place / "plan.json"
    file.write_text(json.dumps(plan))
    return str(file)


def test_a_plan_is_run_from_a_file_and_waited_for(cli: CommandLine, tmp_path: Path) -> None:
    steps = [f"echo one >> {tmp_path}/order", ["sh", "-c", f"echo two >> {tmp_path}/order"]]
    plan_id = cli.text("plan", "run", write(tmp_path, steps)).strip()
    assert len(plan_id) == 36
    shown = cli.text("plan", "progress", plan_id[:14], "--wait", "20")
    assert shown.startswith(f"completed: plan {plan_id}")
    assert (tmp_path / "order").read_text() == "one\ntwo\n"
    assert plan_id in cli.text("plan", "list")
    listed = json.loads(cli.text("plan", "list", "--json"))["plans"]
    assert [(plan["plan_id"], plan["state"], plan["done"]) for plan in listed] == [(plan_id, "completed", 2)]


def test_a_plan_on_stdin_that_fails_exits_with_1(cli: CommandLine) -> None:
    plan = {
        "name": "bad",
        "commands": [{"name": "a", "command": "exit 3"}, {"command": "true", "after": [1]}],
    }
    done = cli("plan", "run", "--wait", "--json", "-", stdin=json.dumps(plan).encode(), code=1)
    view = json.loads(done.stdout)
    assert (view["state"], view["name"], view["failed"][0]["exit_code"]) == ("failed", "bad", 3)
    cli("plan", "progress", code=1)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({}, "no commands"),
        ({"commands": ["true"], "commnds": 1}, "commnds"),
        ([{"command": "true", "after": [7]}], "no step of the plan"),
        ([], "commands"),
    ],
)
def test_a_plan_that_is_none_is_refused_with_2(
    cli: CommandLine, tmp_path: Path, plan: Any, words: str
) -> None:
    assert words in cli("plan", "run", write(tmp_path, plan), code=2).stderr.decode()


def test_what_is_no_plan_is_not_found(cli: CommandLine) -> None:
    assert "no plan" in cli("plan", "progress", code=3).stderr.decode()
    assert "no plan" in cli("plan", "progress", "0000", code=3).stderr.decode()
    assert cli.text("plan", "list") == ""


def test_a_plan_that_takes_longer_is_told_as_it_is(cli: CommandLine, tmp_path: Path) -> None:
    cli("plan", "run", write(tmp_path, ["sleep 60"]))
    cli("plan", "progress", "--wait", "0.2", code=124)
    assert cli.text("plan", "progress").startswith(("pending", "running"))


def test_run_waits_for_others_for_a_moment_and_tries_again(cli: CommandLine, tmp_path: Path) -> None:
    first = cli.run("--delay", "0.5", f"echo first >> {tmp_path}/order")
    second = cli.run("--after", first, f"echo second >> {tmp_path}/order")
    flaky = f"echo x >> {tmp_path}/runs; [ $(wc -l < {tmp_path}/runs) = 2 ]"
    third = cli.run("--after", second[:20], "--retries", "1", flaky)
    cli("wait", third, "--timeout", "20")
    assert (tmp_path / "order").read_text() == "first\nsecond\n"
    assert (tmp_path / "runs").read_text() == "x\nx\n"


def test_run_with_wait_shows_the_run_that_completed(cli: CommandLine, tmp_path: Path) -> None:
    flaky = f"echo x >> {tmp_path}/runs; wc -l < {tmp_path}/runs; [ $(wc -l < {tmp_path}/runs) = 2 ]"
    assert cli.text("run", "--wait", "--retries", "3", flaky).split()[-1] == "2"
