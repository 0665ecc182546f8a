from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped] # it has no types of its own
import pytest

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.requests import PlanStep
from mcp_tasks.server.arguments import parse
from mcp_tasks.server.schemas import Tool
from mcp_tasks.server.toolsets import CORE, FULL, STANDARD, tool_set

VALUES: dict[str, Any] = {
    "integer": 5,
    "number": 1.5,
    "boolean": True,
    "string": "x",
    "array": ["x"],
    "object": {"A": "x"},
}
OF_NAME: dict[str, Any] = {"hooks": [{"webhook": "https://example.org"}]}


def listing(tool: Tool) -> dict[str, Any]:
    shown: dict[str, Any] = tool.listing().model_dump(by_alias=True, mode="json", exclude_none=True)
    return shown


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for inner in schema.values():
            yield from nodes(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from nodes(inner)


def refused(tool: Tool, arguments: dict[str, Any]) -> str | None:
    try:
        parse(tool.request, arguments)
    except InvalidArgument as error:
        return error.message
    return None


def test_the_standard_listing_stays_small_enough_for_every_conversation() -> None:
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [listing(tool) for tool in STANDARD]}}
    assert len(json.dumps(answer, separators=(",", ":"))) < 10_000


def test_the_sets_hold_what_the_interface_names() -> None:
    core = ["run_command", "poll_task", "get_result", "cancel_task", "clear_task", "list_tasks"]
    standard = [*core, "send_input", "wait_tasks", "search_output"]
    assert list(tool_set("core")) == core
    assert list(tool_set("standard")) == standard
    sessions = ["session_info", "update_session", "list_sessions", "end_session"]
    plans = ["run_plan", "plan_progress"]
    journal = ["add_message", "read_journal", "search_journal", "export_session"]
    assert list(tool_set("full")) == [*standard, *sessions, *plans, *journal, "project_context"]


PINNED = {
    # required parameters; read-only, destructive, idempotent, open world
    "run_command": ("command", "-D-O"),
    "poll_task": ("task_id", "R-I-"),
    "get_result": ("task_id", "R-I-"),
    "cancel_task": ("", "-DI-"),
    "clear_task": ("", "-DI-"),
    "list_tasks": ("", "R-I-"),
    "send_input": ("task_id", "-D-O"),
    "wait_tasks": ("", "R-I-"),
    "search_output": ("pattern", "R-I-"),
    "session_info": ("", "R-I-"),
    "update_session": ("", "-D--"),
    "list_sessions": ("", "R-I-"),
    "end_session": ("", "-DI-"),
    "run_plan": ("commands", "-D-O"),
    "plan_progress": ("", "R-I-"),
    "add_message": ("text", "----"),
    "read_journal": ("", "R-I-"),
    "search_journal": ("text", "R-I-"),
    "export_session": ("", "R-I-"),
    "project_context": ("", "R-I-"),
}
"""What clients rely on; a change here is a change of the interface."""


@pytest.mark.parametrize("tool", FULL, ids=lambda tool: tool.name)
def test_required_parameters_and_annotations_are_pinned(tool: Tool) -> None:
    shown = listing(tool)
    hints = [shown["annotations"][f"{name}Hint"] for name in ("readOnly", "destructive", "idempotent")]
    hints.append(shown["annotations"]["openWorldHint"])
    letters = "".join(letter if hint else "-" for letter, hint in zip("RDIO", hints, strict=True))
    assert (" ".join(shown["inputSchema"].get("required", ())), letters) == PINNED[tool.name]


def test_the_parameters_of_the_full_set_are_pinned() -> None:
    pinned = {
        "session_info": "session",
        "update_session": "title cwd shell env preferences expires_in_ms journal_limit seal_journal share"
        " share_expires_in_ms revoke revision session",
        "list_sessions": "state limit cursor session",
        "end_session": "reason force archive wait_ms session",
        "run_plan": "commands name order on_failure key wait_ms session",
        "plan_progress": "plan_id wait_ms session",
        "add_message": "text role task_id parent replaces session",
        "read_journal": "order role task_id thread branch versions folded limit cursor session",
        "search_journal": "text limit cursor session",
        "export_session": "format offset limit session",
        "project_context": "cwd refresh diff session",
    }
    for name, parameters in pinned.items():
        assert set(parameters.split()) <= set(listing(tool_set("full")[name])["inputSchema"]["properties"])


def test_a_step_of_a_plan_is_a_string_a_list_or_a_map_that_says_what_it_takes() -> None:
    schema = listing(tool_set("full")["run_plan"])["inputSchema"]["properties"]["commands"]
    line, argv, step = schema["items"]["anyOf"]
    assert (line, argv["items"]) == ({"type": "string"}, {"type": "string"})
    assert set(PlanStep.model_fields) - {"session"} == set(step["properties"])
    assert {"command", "name", "after", "cwd", "env", "retries", "delay_ms"} <= set(step["properties"])
    jsonschema.validate(["make", ["make", "test"], {"cmd": "make", "after": ["1"]}], schema)


def test_the_full_listing_is_small_for_what_it_holds() -> None:
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [listing(tool) for tool in FULL]}}
    assert len(json.dumps(answer, separators=(",", ":"))) < 22_000


@pytest.mark.parametrize("tool", FULL, ids=lambda tool: tool.name)
class TestEveryTool:
    def test_has_a_title_a_description_and_all_four_hints(self, tool: Tool) -> None:
        shown = listing(tool)
        assert shown["title"]
        assert shown["description"].endswith(".")
        hints = shown["annotations"]
        assert set(hints) == {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
        assert not (hints["readOnlyHint"] and hints["destructiveHint"])

    def test_has_valid_schemas_without_unions_of_types_and_open_to_aliases(self, tool: Tool) -> None:
        for name in ("inputSchema", "outputSchema"):
            schema = listing(tool)[name]
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"
            for node in nodes(schema):
                assert not isinstance(node.get("type"), list)
                assert "additionalProperties" not in node

    def test_names_what_is_always_there_and_requires_nothing_of_an_answer(self, tool: Tool) -> None:
        schema = listing(tool)["outputSchema"]
        assert "required" not in schema
        assert {*tool.answers, "code", "message", "hint"} == set(schema["properties"])
        jsonschema.validate({"code": "internal", "message": "x", "hint": "y"}, schema)

    def test_has_the_parameters_of_its_request_and_no_others(self, tool: Tool) -> None:
        schema = listing(tool)["inputSchema"]
        fields = tool.request.model_fields
        assert set(schema["properties"]) == set(fields)
        assert set(schema.get("required", ())) == {
            name for name, field in fields.items() if field.is_required()
        }

    def test_takes_every_parameter_as_its_schema_describes_it(self, tool: Tool) -> None:
        schema = listing(tool)["inputSchema"]
        for name, described in schema["properties"].items():
            for value in described.get("enum", [OF_NAME.get(name, VALUES[described.get("type", "string")])]):
                given = {"command": "x", "task_id": "x", "pattern": "x", "text": "x", "commands": ["x"]}
                arguments = {need: given[need] for need in schema.get("required", ())} | {name: value}
                jsonschema.validate(arguments, schema)
                if (refusal := refused(tool, arguments)) is not None:
                    # Right by itself, but not beside, or without, another parameter; or no signal.
                    assert re.search("does not go|is missing|needs|goes with|signal is not", refusal)


def test_retention_is_told_where_a_task_is_created() -> None:
    assert "until clear_task" in listing(CORE[0])["description"]


def words(tool: str, parameter: str) -> str:
    described = listing(tool_set("full")[tool])["inputSchema"]["properties"][parameter]
    return str(described["description"])


def test_a_label_is_a_name_where_a_task_is_made_and_a_filter_elsewhere() -> None:
    assert "name" in words("run_command", "label")
    for tool in ("list_tasks", "clear_task", "wait_tasks"):
        assert "with it" in words(tool, "label")


@pytest.mark.parametrize(
    "tool",
    ["run_command", "poll_task", "send_input", "wait_tasks", "end_session", "run_plan", "plan_progress"],
)
def test_every_wait_states_its_default(tool: str) -> None:
    assert "default" in words(tool, "wait_ms")
