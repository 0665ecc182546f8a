from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.requests import (
    AddMessage,
    CancelTask,
    ClearTask,
    EndSession,
    ExportSession,
    GetResult,
    ListTasks,
    PlanStep,
    PollTask,
    ProjectContext,
    ReadJournal,
    Request,
    RunCommand,
    RunPlan,
    SearchJournal,
    SearchOutput,
    SendInput,
    UpdateSession,
    WaitTasks,
)
from mcp_tasks.server.arguments import ALIASES, parse


def refused(request: type[Request], **arguments: Any) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        parse(request, arguments)
    return caught.value


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ({"wait_ms": "250"}, "wait_ms", 250),
        ({"wait_ms": " 250 "}, "wait_ms", 250),
        ({"wait_ms": 250.0}, "wait_ms", 250),
        ({"wait_ms": None}, "wait_ms", None),
        ({"interactive": "true"}, "interactive", True),
        ({"interactive": "False"}, "interactive", False),
        ({"after": "a"}, "after", ("a",)),
        ({"after": '["a", "b"]'}, "after", ("a", "b")),
        ({"after": ["a"]}, "after", ("a",)),
        ({"after": "[a"}, "after", ("[a",)),
        ({"env": '{"A": "1"}'}, "env", {"A": "1"}),
        (
            {"env": {"A": 1, "B": True, "C": 1.5, "D": None}},
            "env",
            {"A": "1", "B": "true", "C": "1.5", "D": None},
        ),
        ({"shell": True}, "shell", None),
        ({"shell": "true"}, "shell", None),
        ({"shell": "bash"}, "shell", "bash"),
        ({"workdir": "/"}, "cwd", "/"),
        ({"working_directory": "/"}, "cwd", "/"),
        ({"yield_time_ms": "7"}, "wait_ms", 7),
        ({"timeout": 1_000}, "timeout_ms", 1_000),
        ({"timeout_ms": 30}, "timeout_ms", 30),
        ({"background": True}, "wait_ms", 0),
        ({"run_in_background": "true"}, "wait_ms", 0),
        ({"is_background": True}, "wait_ms", 0),
        ({"background": False}, "wait_ms", None),
        ({"background": None, "wait_ms": 5}, "wait_ms", 5),
        ({"wait_ms": 5, "is_background": False}, "wait_ms", 5),
        ({"background": "false", "wait_ms": 5}, "wait_ms", 5),
        ({"run_in_background": False, "yield_time_ms": 5}, "wait_ms", 5),
        ({"background": False, "is_background": True}, "wait_ms", 0),
        ({"stdin": '{"a":1}'}, "stdin", '{"a":1}'),
        ({"stdin": "true"}, "stdin", "true"),
        ({"pattern": "[1]"}, "pattern", "[1]"),
        ({"label": "5"}, "label", "5"),
    ],
)
def test_loosely_typed_arguments_are_put_right(arguments: dict[str, Any], name: str, value: Any) -> None:
    request = parse(RunCommand, {"command": "make", **arguments})
    assert getattr(request, name) == value


@pytest.mark.parametrize(
    ("command", "parsed"),
    [
        ("make", "make"),
        (["ls", "-l"], ("ls", "-l")),
        ('["ls", "-l"]', ("ls", "-l")),
        (' ["ls"] ', ("ls",)),
        ("[ -f x ] && make", "[ -f x ] && make"),
        ('["ls", 5]', '["ls", 5]'),
        ('["ls"] | wc', '["ls"] | wc'),
        ('{"a": 1}', '{"a": 1}'),
        ("5", "5"),
        ("true", "true"),
    ],
)
def test_a_command_is_taken_as_it_is_unless_it_is_wholly_a_list_of_strings(
    command: Any, parsed: str | tuple[str, ...]
) -> None:
    assert parse(RunCommand, {"command": command}).command == parsed
    assert parse(RunCommand, {"cmd": command}).command == parsed


@pytest.mark.parametrize("text", ['{"a":1}', "[1]", "5", "true", "null", ""])
def test_text_for_a_command_is_never_parsed(text: str) -> None:
    assert parse(SendInput, {"id": "x", "text": text}).text == text


def test_other_tools_take_loose_types_and_aliases_too() -> None:
    assert parse(CancelTask, {"id": "x", "signal": 9}).signal == "SIGKILL"
    assert parse(CancelTask, {"task_ids": '["a","b"]'}).task_ids == ("a", "b")
    assert parse(WaitTasks, {"task_ids": "a", "yield_time_ms": "5"}).wait_ms == 5
    assert parse(ClearTask, {"older_than_days": "1.5"}).older_than_days == 1.5
    assert parse(ClearTask, {"older_than_days": 7}).older_than_days == 7
    assert parse(SearchOutput, {"pattern": "x", "ignore_case": "true"}).ignore_case is True
    assert parse(SearchOutput, {"query": "x"}).pattern == "x"
    assert parse(SearchJournal, {"query": "x"}).text == "x"
    assert parse(SendInput, {"id": "x", "input": "[1]"}).text == "[1]"
    assert parse(AddMessage, {"text": "yes", "reply_to": "m"}).parent == "m"
    assert parse(GetResult, {"id": "x", "tail": "5"}).tail_lines == 5
    assert parse(GetResult, {"id": "x", "lines": 5}).tail_lines == 5


@pytest.mark.parametrize(
    ("alias", "own"), [(alias, own) for alias, (own, *_) in ALIASES.items() if own in RunCommand.model_fields]
)
@pytest.mark.parametrize("own_first", [True, False])
def test_an_alias_beside_its_own_name_is_refused(alias: str, own: str, own_first: bool) -> None:
    values = {"command": "make", "cwd": "/", "wait_ms": 5, "timeout_ms": 5_000, "pattern": "ready"}
    beside = {alias: True if "background" in alias else values[own]}
    named = {own: values[own]}
    arguments = {**named, **beside} if own_first else {**beside, **named}
    error = refused(RunCommand, **({"command": "x"} if own != "command" else {}), **arguments)
    assert alias in error.message
    assert own in error.message
    assert error.hint == f"give {own} only"


def test_two_aliases_of_one_parameter_are_refused() -> None:
    error = refused(RunCommand, command="x", workdir="/", working_directory="/")
    assert error.message == "workdir and working_directory both stand for cwd"


@pytest.mark.parametrize("value", [1, 30, "30", 999])
def test_a_timeout_that_must_be_meant_in_seconds_is_refused_with_a_hint(value: Any) -> None:
    error = refused(RunCommand, command="x", timeout=value)
    assert "milliseconds" in error.message
    assert f"timeout_ms: {int(value) * 1_000}" in error.hint


@pytest.mark.parametrize(
    ("request_type", "name", "hint"),
    [
        (RunCommand, "wiat_ms", "did you mean 'wait_ms'?"),
        (RunCommand, "Command", "did you mean 'command'?"),
        (RunCommand, "run_background", "did you mean 'run_in_background'?"),
        (RunCommand, "COMMAND", "did you mean 'command'?"),
        (RunCommand, "wait", "did you mean 'wait_ms'?"),
        (RunCommand, "task_id", "run_command takes session, wait_ms,"),
        (PollTask, "taskid", "did you mean 'task_id'?"),
        (PollTask, "taskId", "did you mean 'task_id'?"),
        (ListTasks, "status", "did you mean 'state'?"),
        (WaitTasks, "task_id", "did you mean 'task_ids'?"),
        (PollTask, "after", "poll_task takes session, wait_ms,"),
        (PollTask, "cmd", "poll_task takes session, wait_ms,"),
        (PollTask, "background", "poll_task takes session, wait_ms,"),
        (PollTask, "zzzz", "poll_task takes session, wait_ms,"),
    ],
)
def test_an_unknown_parameter_is_refused_by_name_with_the_nearest_known_one(
    request_type: type[Request], name: str, hint: str
) -> None:
    error = refused(request_type, **{name: 1})
    assert error.message == f"unknown parameter {name!r}"
    assert error.hint.startswith(hint)


def test_an_unknown_parameter_is_refused_even_when_it_is_null() -> None:
    assert refused(RunCommand, command="x", foo=None).message == "unknown parameter 'foo'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"command": None}, "command is missing"),
        ({"command": "x", "wait_ms": "soon"}, "wait_ms must be an integer, not a string"),
        ({"command": "x", "wait_ms": 1.5}, "wait_ms must be an integer, not a number"),
        ({"command": "x", "wait_ms": "9" * 30}, "wait_ms must be an integer, not a string"),
        ({"command": "x", "wait_ms": [1]}, "wait_ms must be an integer, not a list"),
        ({"command": "x", "interactive": 1}, "interactive must be true or false, not a number"),
        ({"command": "x", "background": "yes"}, "background must be true or false"),
        ({"command": "x", "timeout": -1}, "timeout_ms is too small"),
        ({"command": "x", "env": "A=1"}, "env must be a map of names to strings, not a string"),
        ({"command": "x", "env": "[1]"}, "env must be a map of names to strings, not a string"),
        ({"command": "x", "after": {"a": 1}}, "after must be a list of strings, not a map"),
        ({"command": "x", "shell": False}, "shell: false does not go with this command"),
        ({"command": ["x"], "shell": True}, "shell: true does not go with this command"),
        ({"command": "x", "stdin": ["a"]}, "stdin must be a string, not a list"),
    ],
)
def test_what_cannot_be_put_right_is_refused(arguments: dict[str, Any], message: str) -> None:
    error = refused(RunCommand, **arguments)
    assert error.message == message
    assert error.hint


@pytest.mark.parametrize(
    ("commands", "steps"),
    [
        ("make", ["make"]),
        ("[ -f x ] && make", ["[ -f x ] && make"]),
        ('["make", "make test"]', ["make", "make test"]),
        (["make", ["make", "test"]], ["make", ("make", "test")]),
        (['["make", "test"]'], [("make", "test")]),
        ({"command": "make"}, ["make"]),
        ('{"cmd": "make"}', ["make"]),
        (['{"cmd": "make"}', "{ make; }"], ["make", "{ make; }"]),
    ],
)
def test_the_commands_of_a_plan_are_taken_in_every_form(commands: Any, steps: list[Any]) -> None:
    assert [step.command for step in parse(RunPlan, {"commands": commands}).commands] == steps


def test_a_step_is_as_loosely_typed_as_a_call_and_knows_the_same_aliases() -> None:
    step = {
        "cmd": "make",
        "workdir": "/",
        "timeout": "5000",
        "retries": "2",
        "delay_ms": 10.0,
        "env": {"A": 1, "B": None},
        "after": [1, "build"],
        "name": "test",
        "shell": "true",
        "stdin": '{"a":1}',
        "grace_ms": None,
    }
    [parsed] = parse(RunPlan, {"commands": [step]}).commands
    assert parsed == PlanStep(
        command="make",
        cwd="/",
        timeout_ms=5_000,
        retries=2,
        delay_ms=10,
        env={"A": "1", "B": None},
        after=("1", "build"),
        name="test",
        stdin='{"a":1}',
    )
    assert parse(RunPlan, {"commands": [{"command": "x", "after": 1}]}).commands[0].after == ("1",)


@pytest.mark.parametrize(
    ("commands", "message", "hint"),
    [
        (5, "commands must be a list", "give a list of commands"),
        ([], "commands is empty", "give a list of commands"),
        ([5], "commands[1]: command must be a string", ""),
        (["x", {}], "commands[2]: command is missing", "give the command"),
        ([{"command": "x", "session": "y"}], "commands[1]: session does not go with a step", "one session"),
        ([{"command": "x", "comand": 1}], "commands[1]: unknown parameter 'comand'", "'command'"),
        ([{"command": "x", "zzz": 1}], "commands[1]: unknown parameter 'zzz'", "takes command, name"),
        ([{"command": "x", "cmd": "y"}], "commands[1]: command and cmd both stand for", "give command"),
        ([{"command": "x", "timeout": 5}], "commands[1]: timeout is in milliseconds", "timeout_ms: 5000"),
        ([{"command": "x", "wait_ms": 5}], "commands[1]: unknown parameter 'wait_ms'", ""),
        ([{"command": "x", "env": {"A": "\0"}}], "commands[1]: env['A'] contains a NUL", ""),
    ],
)
def test_a_step_that_is_not_right_is_refused_by_its_number(commands: Any, message: str, hint: str) -> None:
    error = refused(RunPlan, commands=commands)
    assert error.message.startswith(message)
    assert hint in error.hint


def test_the_tools_for_sessions_take_loose_types_too() -> None:
    update = parse(
        UpdateSession,
        {
            "working_directory": "/",
            "env": '{"A": 1}',
            "preferences": '{"project": {"test": "make check"}, "depth": 3, "old": null}',
            "expires_in_ms": "0",
            "journal_limit": 50.0,
            "seal_journal": "true",
            "revision": "4",
        },
    )
    assert (update.cwd, update.env, update.expires_in_ms, update.journal_limit) == ("/", {"A": "1"}, 0, 50)
    assert update.preferences == {"project": {"test": "make check"}, "depth": 3, "old": None}
    assert (update.seal_journal, update.revision) == (True, 4)
    end = parse(EndSession, {"force": "true", "archive": "false", "yield_time_ms": "5"})
    assert (end.force, end.archive, end.wait_ms) == (True, False, 5)
    assert parse(RunPlan, {"commands": "x", "background": True}).wait_ms == 0
    assert parse(ReadJournal, {"folded": "true", "limit": "5", "id": "t"}).task_id == "t"
    assert parse(ExportSession, {"offset": "7"}).offset == 7
    assert parse(ProjectContext, {"workdir": "/", "diff": "true", "refresh": False}).diff


def test_texts_for_people_are_never_parsed() -> None:
    assert parse(AddMessage, {"text": '["a"]'}).text == '["a"]'
    assert parse(SearchJournal, {"text": "5"}).text == "5"


def test_preferences_that_are_no_map_are_refused_with_an_example() -> None:
    error = refused(UpdateSession, preferences="[1]")
    assert error.message.startswith("preferences must be a map")
    assert "make check" in error.hint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from(
        [
            RunCommand,
            PollTask,
            CancelTask,
            ClearTask,
            SendInput,
            WaitTasks,
            SearchOutput,
            RunPlan,
            UpdateSession,
        ]
    ),
    st.dictionaries(
        st.sampled_from(
            [*RunCommand.model_fields, *ALIASES, "task_id", "text", "signal", "commands", "preferences", "x"]
        ),
        JSON,
        max_size=4,
    ),
)
def test_whatever_is_given_is_a_request_or_an_invalid_argument(
    request_type: type[Request], arguments: dict[str, Any]
) -> None:
    with contextlib.suppress(InvalidArgument):
        assert isinstance(parse(request_type, arguments), request_type)


@pytest.mark.parametrize("value", [True, False, "true"])
def test_a_session_has_a_shell_by_its_path_and_not_by_yes_or_no(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="shell must be a string, not a boolean"):
        parse(UpdateSession, {"shell": value})
