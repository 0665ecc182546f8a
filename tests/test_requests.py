from __future__ import annotations

from typing import Any

import pytest

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.parameters import signal_name
from mcp_tasks.requests import (
    CancelTask,
    ClearTask,
    GetResult,
    ListTasks,
    PlanStep,
    PollTask,
    Request,
    RunCommand,
    SearchOutput,
    SendInput,
    TaskHook,
    WaitTasks,
)


def refused(request: type[Request], **fields: Any) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        request(**fields)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def test_defaults_are_those_of_the_interface() -> None:
    run = RunCommand(command="make")
    assert (run.wait_ms, run.grace_ms, run.max_bytes, run.on_output_limit) == (None, 5_000, 8_192, "kill")
    assert (run.env, run.after, run.retries, run.delay_ms, run.ansi) == ({}, (), 0, 0, "strip")
    assert CancelTask(task_id="x").signal == "SIGTERM"
    assert CancelTask(task_id="x").grace_ms == 5_000
    assert ListTasks().limit == 20
    search = SearchOutput(pattern="x")
    assert (search.limit, search.order, search.stream, search.context) == (50, "newest", "both", 0)
    assert WaitTasks(label="x").mode == "any"
    assert GetResult(task_id="x").encoding == "text"


def test_a_list_becomes_a_tuple_so_that_a_request_cannot_change() -> None:
    request = RunCommand.model_validate({"command": ["ls", "-l"], "after": ["a"]})
    assert request.command == ("ls", "-l")
    assert request.after == ("a",)
    with pytest.raises(ValueError, match="frozen"):
        request.command = "x"  # type: ignore[misc] # that is what is tested


def test_secrets_are_not_in_the_representation() -> None:
    said = repr(RunCommand(command="x", env={"A": "hunter2"}, stdin="hunter2"))
    said += repr(SendInput(task_id="x", text="hunter2"))
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("request_type", "fields", "named"),
    [
        (RunCommand, {}, "command is missing"),
        (RunCommand, {"command": 5}, "command must be a string or a list of strings, not a number"),
        (RunCommand, {"command": {"a": "hunter2"}}, "command must be"),
        (RunCommand, {"command": ""}, "command is empty"),
        (RunCommand, {"command": "  "}, "command is empty"),
        (RunCommand, {"command": []}, "command is empty"),
        (RunCommand, {"command": [""]}, "command is empty"),
        (RunCommand, {"command": ["ls", 5]}, "command[1] must be a string"),
        (RunCommand, {"command": "a\0hunter2"}, "command contains a NUL byte"),
        (RunCommand, {"command": ["a", "\0hunter2"]}, "command[1] contains a NUL byte"),
        (
            RunCommand,
            {"command": "hunter2" * 20_000},
            "command has 140000 bytes, and the",
        ),
        (RunCommand, {"command": ["x", "é" * 65_536]}, "command[1] has 131072 bytes"),
        (RunCommand, {"command": ["hunter2"] * 2**20}, "command has 16777216 bytes"),
        (PlanStep, {"command": "x" * 3_000_000}, "command has 3000000 bytes"),
        (TaskHook, {"command": "x" * 3_000_000}, "command has 3000000 bytes"),
        (
            RunCommand,
            {"command": "x", "hooks": [{"command": ["x" * 2**18]}]},
            "hooks[1]: command[0] has 262144 bytes",
        ),
        (RunCommand, {"command": "x", "cwd": "/\0hunter2"}, "cwd contains a NUL byte"),
        (RunCommand, {"command": "x", "cwd": ""}, "cwd is empty"),
        (RunCommand, {"command": "x", "shell": "\0"}, "shell contains a NUL byte"),
        (RunCommand, {"command": "x", "env": {"A": "hunter2\0"}}, "env['A'] contains a NUL byte"),
        (RunCommand, {"command": "x", "env": {"A=hunter2": "1"}}, "env has a name that cannot be one"),
        (RunCommand, {"command": "x", "env": {"": "1"}}, "env has a name that cannot be one"),
        (RunCommand, {"command": "x", "env": {"A": ["hunter2"]}}, "env['A'] must be a string, not a list"),
        (RunCommand, {"command": "x", "env": "A=hunter2"}, "env must be a map"),
        (RunCommand, {"command": "x", "stdin": {"a": "hunter2"}}, "stdin must be a string, not a map"),
        (RunCommand, {"command": "x", "wait_ms": -1}, "wait_ms is too small"),
        (RunCommand, {"command": "x", "wait_ms": "5"}, "wait_ms must be an integer, not a string"),
        (RunCommand, {"command": "x", "wait_ms": True}, "wait_ms must be an integer, not a boolean"),
        (RunCommand, {"command": "x", "wait_ms": 10**30}, "wait_ms is too large"),
        (RunCommand, {"command": "x", "timeout_ms": 0}, "timeout_ms is too small"),
        (RunCommand, {"command": "x", "timeout_ms": -5}, "timeout_ms is too small"),
        (RunCommand, {"command": "x", "grace_ms": -1}, "grace_ms is too small"),
        (RunCommand, {"command": "x", "delay_ms": -1}, "delay_ms is too small"),
        (RunCommand, {"command": "x", "idle_ms": 0}, "idle_ms is too small"),
        (RunCommand, {"command": "x", "session": ".."}, "session is not a session name"),
        (RunCommand, {"command": "x", "session": "a/b"}, "session is not a session name"),
        (RunCommand, {"command": "x", "session": ""}, "session is not a session name"),
        (RunCommand, {"command": "x", "session": "a" * 129}, "session is not a session name"),
        (RunCommand, {"command": "x", "label": "a" * 257}, "label is too long"),
        (RunCommand, {"command": "x", "until": "never"}, "until has a value that it cannot have"),
        (RunCommand, {"command": "x", "until": "pattern"}, "until 'pattern' needs a pattern"),
        (RunCommand, {"command": "x", "until": "output", "pattern": "y"}, "pattern does not go with until"),
        (RunCommand, {"command": "x", "until": "exit", "idle_ms": 1}, "idle_ms does not go with until"),
        (
            RunCommand,
            {"command": "x", "stdin": "", "interactive": True},
            "stdin does not go with interactive",
        ),
        (RunCommand, {"command": "x", "stdin": "", "pty": True}, "stdin does not go with pty"),
        (RunCommand, {"command": ["x"], "shell": "bash"}, "shell does not go with a list"),
        (RunCommand, {"command": "x", "colour": 1}, "unknown parameter 'colour'"),
        (RunCommand, {"command": "x", "after": [5]}, "after[0] must be a string"),
        (PollTask, {}, "task_id is missing"),
        (PollTask, {"task_id": 5}, "task_id must be a string, not a number"),
        (PollTask, {"task_id": "x", "max_bytes": 262_145}, "max_bytes is too large"),
        (GetResult, {"task_id": "x", "limit": 0}, "limit is too small"),
        (GetResult, {"task_id": "x", "offset": -1}, "offset is too small"),
        (GetResult, {"task_id": "x", "cursor": "a", "tail_lines": 1}, "cursor does not go with tail_lines"),
        (GetResult, {"task_id": "x", "encoding": "hex"}, "encoding has a value"),
        (CancelTask, {}, "task_id is missing"),
        (CancelTask, {"task_id": "a", "task_ids": ["b"]}, "task_id does not go with task_ids"),
        (CancelTask, {"task_ids": []}, "task_ids is empty"),
        (CancelTask, {"task_id": "a", "signal": "SIGFOO"}, "signal is not a signal"),
        (ClearTask, {}, "task_id is missing"),
        (ClearTask, {"all_finished": False}, "task_id is missing"),
        (ClearTask, {"task_id": "a", "all_finished": True}, "task_id does not go with all_finished"),
        (ClearTask, {"task_id": "a", "older_than_days": 1}, "task_id does not go with older_than_days"),
        (ClearTask, {"task_id": "a", "label": "b"}, "label does not go with task_id"),
        (ClearTask, {"task_id": "a", "cwd": "b"}, "cwd does not go with task_id"),
        (ClearTask, {"all_finished": True, "cancel": True}, "cancel goes with task_id only"),
        (ClearTask, {"older_than_days": -1}, "older_than_days is too small"),
        (ClearTask, {"older_than_days": "week"}, "older_than_days must be a number"),
        (ClearTask, {"older_than_days": float("nan")}, "older_than_days is"),
        (ListTasks, {"state": "done"}, "state has a value"),
        (SendInput, {"task_id": "x"}, "text is missing"),
        (WaitTasks, {}, "task_ids is missing"),
        (WaitTasks, {"task_ids": ["a"], "label": "b"}, "task_ids does not go with label"),
        (SearchOutput, {}, "pattern is missing"),
        (SearchOutput, {"pattern": ""}, "pattern is empty"),
    ],
)
def test_what_is_not_well_formed_is_refused_by_name_and_without_its_value(
    request_type: type[Request], fields: dict[str, Any], named: str
) -> None:
    error = refused(request_type, **fields)
    assert error.message.startswith(named)
    assert "hunter2" not in str(error)
    assert error.hint, "what would be right is said too"
    assert error.message not in error.hint


@pytest.mark.parametrize(
    ("request_type", "fields", "right"),
    [
        (RunCommand, {}, '"make test"'),
        (RunCommand, {"command": "x", "env": 5}, '{"CI": "1"}'),
        (RunCommand, {"command": "x", "env": {"A": []}}, "null unsets"),
        (RunCommand, {"command": "x", "interactive": "y"}, "interactive: true"),
        (RunCommand, {"command": "x", "label": 5}, "leave label out"),
        (RunCommand, {"command": "x", "label": "a" * 257}, "at most 256 characters"),
        (RunCommand, {"command": "x", "wait_ms": -1}, "at least 0 ms"),
        (RunCommand, {"command": "x", "wait_ms": "soon"}, "whole number of milliseconds, like wait_ms: 5000"),
        (RunCommand, {"command": "x", "retries": "y"}, "like retries: 10"),
        (RunCommand, {"command": "x", "colour": 1}, "run_command takes session, "),
        (RunCommand, {"command": "x", "labels": 1}, "did you mean 'label'?"),
        (PollTask, {"task_id": 5}, "as run_command answered it"),
        (PollTask, {"task_id": "x", "max_bytes": 10**6}, "at most 262144 bytes"),
        (RunCommand, {"command": "x", "label": "\ud800"}, "surrogates"),
        (ClearTask, {"older_than_days": -1}, "give at least 0 days"),
        (ClearTask, {"older_than_days": float("inf")}, "a number of days"),
        (WaitTasks, {"task_ids": ["x"] * 1_001}, "at most 1000 of them"),
        (WaitTasks, {"task_ids": [5]}, "in a list of strings"),
    ],
)
def test_a_refusal_says_what_would_be_right(
    request_type: type[Request], fields: dict[str, Any], right: str
) -> None:
    assert right in refused(request_type, **fields).hint


def test_a_choice_is_refused_with_the_choices() -> None:
    assert refused(PollTask, task_id="x", show="all").hint == "give one of 'new', 'tail' or 'none'"


def test_a_wait_of_a_day_is_well_formed() -> None:
    assert PollTask(task_id="x", wait_ms=86_400_000).wait_ms == 86_400_000


@pytest.mark.parametrize("task_id", ["", "x", "../../etc/passwd", "é\0"])
def test_any_string_is_taken_for_a_task_id_because_a_wrong_one_is_just_not_found(task_id: str) -> None:
    assert PollTask(task_id=task_id).task_id == task_id


@pytest.mark.parametrize("given", ["SIGINT", "INT", "int", " sigint ", "2"])
def test_a_signal_may_be_given_as_people_type_it(given: str) -> None:
    assert signal_name(given) == "SIGINT"


@pytest.mark.parametrize(
    "fields", [{"text": ""}, {"enter": True}, {"eof": True}, {"signal": "SIGHUP"}, {"text": "x", "eof": True}]
)
def test_input_is_any_of_text_enter_end_and_signal(fields: dict[str, Any]) -> None:
    SendInput(task_id="x", **fields)
