"""Tools that ask the client for something: over the back channel in 2025-11-25, by rounds in 2026-07-28."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata

from mcp_tasks.server.callers import Context
from tests.conformance.contents import Tool, text

__all__ = ["TOOLS", "ask", "form", "given", "one_question"]

_KEY: Final = secrets.token_bytes(32)


def form(message: str, **properties: Mapping[str, Any]) -> dict[str, Any]:
    """An elicitation whose fields are all wanted unless they have a default."""
    wanted = [name for name, schema in properties.items() if "default" not in schema]
    schema = {"type": "object", "properties": properties, "required": wanted}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def _sampling(prompt: str) -> dict[str, Any]:
    message = {"role": "user", "content": text(prompt)}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": 100}}


_STRING: Final = {"type": "string"}
_NAME: Final = form("What is your name?", name=_STRING)
_CONFIRM: Final = form("Please confirm", ok={"type": "boolean"})
_CAPITAL: Final = _sampling("What is the capital of France?")
_ROOTS: Final[dict[str, Any]] = {"method": "roots/list", "params": {}}

_DEFAULTS: Final = form(
    "Please review the form",
    name={"type": "string", "default": "John Doe"},
    age={"type": "integer", "default": 30},
    score={"type": "number", "default": 95.5},
    status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    verified={"type": "boolean", "default": True},
)

_OPTIONS: Final = ["option1", "option2", "option3"]
_TITLED: Final = [{"const": f"value{number}", "title": f"Option {number}"} for number in (1, 2, 3)]
_ENUMS: Final = form(
    "Please select options",
    untitledSingle={"type": "string", "enum": _OPTIONS},
    titledSingle={"type": "string", "oneOf": _TITLED},
    legacyEnum={"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
    untitledMulti={"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
    titledMulti={"type": "array", "items": {"anyOf": _TITLED}},
)


def ask(requests: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An InputRequiredResult; the state of the rounds is signed, so that it cannot be changed."""
    result: dict[str, Any] = {"resultType": "input_required", "inputRequests": dict(requests)}
    if state is not None:
        said = json.dumps({**state, "nonce": secrets.token_hex(8)})
        result["requestState"] = json.dumps([said, _signature(said)])
    return result


def _signature(said: str) -> str:
    return hmac.new(_KEY, said.encode(), hashlib.sha256).hexdigest()


def _state(params: types.CallToolRequestParams) -> dict[str, Any]:
    if params.request_state is None:
        return {}
    try:
        said, signature = json.loads(params.request_state)
        if hmac.compare_digest(signature, _signature(said)):
            state: dict[str, Any] = json.loads(said)
            return state
    except (ValueError, TypeError):
        pass
    raise MCPError(types.INVALID_PARAMS, "requestState has been changed")


def given(responses: Any, key: str) -> dict[str, Any] | None:
    """The response to one question, as it came; None where there is none."""
    found = (responses or {}).get(key)
    if found is None:
        return None
    if not isinstance(found, Mapping):
        dumped: dict[str, Any] = found.model_dump(by_alias=True, mode="json", exclude_none=True)
        return dumped
    return dict(found)


def _said(content: str) -> dict[str, Any]:
    return {"content": [text(content)]}


def one_question(key: str, question: Mapping[str, Any], answer: str) -> Tool:
    """A tool that asks one thing and tells the response."""

    async def call(_: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
        response = given(params.input_responses, key)
        if response is None:
            return ask({key: question})
        return _said(f"{answer}{json.dumps(response)}")

    return {"type": "object", "properties": {}}, call


async def _validated(_: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
    response = given(params.input_responses, "user_name")
    name = ((response or {}).get("content") or {}).get("name")
    return _said(f"Hello, {name}!") if isinstance(name, str) else ask({"user_name": _NAME})


async def _keeps_state(_: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
    state = _state(params)
    response = given(params.input_responses, "confirm")
    if state and response is not None:
        return _said("state-ok integrity-ok: the state is the one that was given")
    return ask({"confirm": _CONFIRM}, {"kind": "confirm"})


async def _asks_three(_: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
    questions = {"user_name": _NAME, "greeting": _sampling("Generate a greeting"), "client_roots": _ROOTS}
    missing = {
        key: question for key, question in questions.items() if given(params.input_responses, key) is None
    }
    if missing or not _state(params):
        return ask(missing or questions, {"kind": "three"})
    return _said("all three were answered")


async def _two_rounds(_: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
    state = _state(params)
    first, second = (given(params.input_responses, key) for key in ("step1", "step2"))
    if state.get("round") == 2 and second is not None:
        return _said(f"Multi-round complete: {json.dumps([state['first'], second])}")
    if state.get("round") == 1 and first is not None:
        question = form("Step 2: What is your favorite color?", color=_STRING)
        return ask({"step2": question}, {"round": 2, "first": first})
    return ask({"step1": form("Step 1: What is your name?", name=_STRING)}, {"round": 1})


async def _asks_what_it_may(context: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
    if params.input_responses:
        return _said(f"capabilities-ok: received {', '.join(params.input_responses)}")
    capabilities = context.session.client_capabilities
    questions = {}
    if capabilities is not None and capabilities.elicitation is not None:
        questions["elicit_input"] = form("Elicitation input", value=_STRING)
    if capabilities is not None and capabilities.sampling is not None:
        questions["sample_input"] = _sampling("Sample request")
    return ask(questions, {"kind": "capabilities"}) if questions else _said("nothing can be asked")


def _over_back_channel(question: Mapping[str, Any] | None, answer: str) -> Tool:
    """A tool of 2025-11-25, whose question goes out while its call is open."""

    async def call(context: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
        arguments = params.arguments or {}
        asked = question or (
            _sampling(str(arguments.get("prompt")))
            if "prompt" in arguments
            else form(str(arguments.get("message")), response=_STRING)
        )
        is_sampling = asked["method"] == "sampling/createMessage"
        request = types.CreateMessageRequest if is_sampling else types.ElicitRequest
        result = types.CreateMessageResult if is_sampling else types.ElicitResult
        response = await context.session.send_request(
            request.model_validate(asked, by_name=False),
            result,
            metadata=ServerMessageMetadata(related_request_id=context.request_id),
        )
        return _said(f"{answer}{response.model_dump_json(by_alias=True, exclude_none=True)}")

    return {"type": "object", "properties": {"prompt": _STRING, "message": _STRING}}, call


def _tool(call: Any) -> Tool:
    return {"type": "object", "properties": {}}, call


_PREFIX: Final = "test_input_required_result_"

TOOLS: Final[Mapping[str, Tool]] = {
    "test_sampling": _over_back_channel(None, "LLM response: "),
    "test_elicitation": _over_back_channel(None, "User response: "),
    "test_elicitation_sep1034_defaults": _over_back_channel(_DEFAULTS, "Elicitation completed: "),
    "test_elicitation_sep1330_enums": _over_back_channel(_ENUMS, "Elicitation completed: "),
    f"{_PREFIX}elicitation": _tool(_validated),
    f"{_PREFIX}sampling": one_question(
        "sample_request", _sampling("What is the capital of France?"), "Sampled: "
    ),
    f"{_PREFIX}list_roots": one_question("roots_request", _ROOTS, "Roots: "),
    f"{_PREFIX}request_state": _tool(_keeps_state),
    f"{_PREFIX}tampered_state": _tool(_keeps_state),
    f"{_PREFIX}multiple_inputs": _tool(_asks_three),
    f"{_PREFIX}multi_round": _tool(_two_rounds),
    f"{_PREFIX}capabilities": _tool(_asks_what_it_may),
}
