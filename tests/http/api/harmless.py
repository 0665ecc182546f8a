"""Hooks of schemathesis: what it makes up is never run as a command, and nothing outside is looked at."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import HookContext


@schemathesis.hook
def map_body(context: HookContext, body: Any) -> Any:
    """Put `true` in front of every command, whatever the rest is."""
    return _harmless(body) if isinstance(body, dict) else body


def _harmless(body: dict[str, Any]) -> dict[str, Any]:
    made = dict(body)
    for name in ("command", "shell"):
        if isinstance(made.get(name), str) and made[name]:
            made[name] = "true # " + "".join(made[name].split())
    if isinstance(made.get("command"), list) and made["command"]:
        made["command"] = ["true", *made["command"]]
    if isinstance(made.get("commands"), list):
        made["commands"] = [_harmless_step(step) for step in made["commands"]]
    if isinstance(made.get("folders"), list):
        made["folders"] = [f"/nowhere/{each}" if isinstance(each, str) else each for each in made["folders"]]
    for name in ("hooks", "hook"):
        made.pop(name, None)
    return made


def _harmless_step(step: Any) -> Any:
    match step:
        case dict():
            return _harmless(step)
        case str() | list():
            return _harmless({"command": step})["command"]
        case _:
            return step
