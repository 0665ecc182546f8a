from __future__ import annotations

import base64
import json
import shlex
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tasks.redaction import (
    REDACTED,
    redact_arguments,
    redact_command,
    redact_text,
    redact_value,
    secret_values,
)

GITHUB = "ghp_" + "a1B2" * 9
ODD = "p'a\"s s/w&ö\n$x"


def test_values_are_secret_when_they_are_marked_or_their_name_says_so() -> None:
    environment = {
        "A": "marked",
        "B": "plain value",
        "API_KEY": "by its name",
        "TOKEN": "short",
        "C": "ab",
        "D": None,
        "PASSWORD_FILE": "/run/secrets/x",
    }

    assert secret_values(environment, ["A", "C", "D"]) == ("marked", "by its name")
    assert secret_values({"TOKEN": "abc"}, ["TOKEN"]) == ("abc",)


@pytest.mark.parametrize(
    "text",
    [
        ODD,
        json.dumps(ODD),
        json.dumps(ODD, ensure_ascii=False),
        shlex.quote(ODD),
        quote(ODD),
        quote(ODD, safe=""),
        quote_plus(ODD),
        base64.b64encode(ODD.encode()).decode(),
    ],
)
def test_a_value_is_found_however_it_is_written(text: str) -> None:
    shown = redact_text(f"before {text} after", (ODD,))

    assert "before" in shown
    assert "after" in shown
    assert "s/w" not in shown
    assert "s%2Fw" not in shown
    assert base64.b64encode(ODD.encode()).decode()[:8] not in shown


def test_a_value_that_is_part_of_another_leaves_nothing_of_it() -> None:
    assert redact_text("abcdef abc", ("abc", "abcdef")) == f"{REDACTED} {REDACTED}"


def test_a_value_of_a_list_command_is_taken_out_before_it_is_quoted() -> None:
    assert redact_command(["echo", ODD, f"--x={ODD}"], (ODD,)) == "echo [redacted] '--x=[redacted]'"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"password": "x", "user": "y"}, {"password": REDACTED, "user": "y"}),
        (
            {"a": {"apiKey": "x", "b": [{"client_secret": 5}]}},
            {"a": {"apiKey": REDACTED, "b": [{"client_secret": REDACTED}]}},
        ),
        (
            {"credentials": {"user": "x", "list": ["y", None, True]}},
            {"credentials": {"user": REDACTED, "list": [REDACTED, None, True]}},
        ),
        ({"token": None, "secret": True, "password": ""}, {"token": None, "secret": True, "password": ""}),
        ({"max_tokens": 5, "tokens": 7, "keys": ["a"]}, {"max_tokens": 5, "tokens": 7, "keys": ["a"]}),
        ({"Authorization": "Bearer x"}, {"Authorization": REDACTED}),
        (
            ["tool", "--password", "x", "--token=y", "-v"],
            ["tool", "--password", REDACTED, f"--token={REDACTED}", "-v"],
        ),
        (["tool", "--password", "--verbose"], ["tool", "--password", "--verbose"]),
        ([["Authorization", "x"]], [["Authorization", REDACTED]]),
        (("a", GITHUB), ["a", REDACTED]),
        ({GITHUB: 1}, {REDACTED: 1}),
        (f"x {GITHUB}", f"x {REDACTED}"),
        (5, 5),
        (None, None),
    ],
)
def test_json_is_redacted_by_name_and_form(value: Any, shown: Any) -> None:
    assert redact_value(value) == shown


def test_known_values_are_taken_out_of_json() -> None:
    assert redact_value({"a": ["xhunter2x"], "hunter2": 1}, ("hunter2",)) == {
        "a": [f"x{REDACTED}x"],
        REDACTED: 1,
    }


def test_json_of_any_depth_is_borne() -> None:
    deep: Any = GITHUB
    hidden: Any = "hunter2"
    for _ in range(5_000):
        deep, hidden = [{"a": deep}], [{"a": hidden}]

    assert GITHUB not in repr_of(redact_value(deep))
    assert "hunter2" not in repr_of(redact_value({"password": hidden}))


def repr_of(value: Any) -> str:
    return json.dumps(value)


def test_the_arguments_of_a_call_keep_no_environment_no_input_and_no_marked_value() -> None:
    arguments = {
        "command": ["deploy", "--key", "hunter2-marked"],
        "env": {"A": "hunter2-marked", "B": "not marked", "C": None},
        "secrets": ["A"],
        "stdin": "typed",
        "label": "with hunter2-marked",
        "cwd": None,
    }

    assert redact_arguments(arguments) == {
        "command": ["deploy", "--key", REDACTED],
        "env": {"A": REDACTED, "B": REDACTED, "C": None},
        "secrets": ["A"],
        "stdin": REDACTED,
        "label": f"with {REDACTED}",
        "cwd": None,
    }


def test_the_steps_of_a_plan_are_redacted_with_the_values_of_all() -> None:
    step = {"command": f"echo {GITHUB}", "env": {"A": "hunter2-step"}, "secrets": "A", "stdin": "typed"}
    shown = redact_arguments({"commands": [step, "echo hunter2-step", 5], "name": "plan"})

    assert shown == {
        "commands": [
            {"command": f"echo {REDACTED}", "env": {"A": REDACTED}, "secrets": ["A"], "stdin": REDACTED},
            f"echo {REDACTED}",
            5,
        ],
        "name": "plan",
    }


def test_what_is_typed_into_a_task_is_hidden_and_what_is_said_is_not() -> None:
    assert redact_arguments({"task_id": "t", "text": "yes"})["text"] == REDACTED
    assert redact_arguments({"role": "user", "text": f"hello {GITHUB}"})["text"] == f"hello {REDACTED}"
    assert redact_arguments({"role": "user", "task_id": "t", "text": "hello"})["text"] == "hello"


@pytest.mark.parametrize("env", ['{"A": "hunter2"}', ["hunter2"], 5, {"A": ["hunter2"]}])
def test_arguments_that_will_be_refused_tell_nothing_either(env: Any) -> None:
    assert "hunter2" not in json.dumps(redact_arguments({"command": "x", "env": env, "secrets": 5}))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_any_json_stays_json_and_redacting_again_changes_nothing(value: Any) -> None:
    shown = redact_value(value)

    assert json.loads(json.dumps(shown)) == shown
    assert redact_value(shown) == shown


@given(st.text(min_size=3), st.text(), st.text())
def test_a_marked_value_never_shows(value: str, before: str, after: str) -> None:
    shown = redact_text(before + value + after, (value,))

    assert value not in shown.replace(REDACTED, "") or value in (before + after) or value in REDACTED


def test_the_key_that_a_state_directory_is_sealed_with_is_a_secret() -> None:
    assert secret_values({"MCP_TASKS_KEY": "hunter2", "MCP_TASKS_KEY_FILE": "/a/file"}) == ("hunter2",)
