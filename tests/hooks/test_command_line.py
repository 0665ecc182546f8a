from __future__ import annotations

import json
import re

import pytest

from mcp_tasks.cli.hook_options import hooks_of
from mcp_tasks.cli.wording import explained
from mcp_tasks.errors import InvalidArgument, NotSupported
from mcp_tasks.requests import RunCommand
from mcp_tasks.server.arguments import parse, understood


def test_a_hook_on_the_command_line_is_a_url_the_desktop_a_command_or_a_map() -> None:
    url, desktop, line, group, map_ = hooks_of(
        [
            "https://example.org/x",
            "desktop",
            "curl https://example.org",
            "{ echo told; }",
            '{"webhook": "http://localhost:1", "on": ["idle"], "idle_ms": 5}',
        ]
    )
    assert (url.kind, url.webhook, url.events) == ("webhook", "https://example.org/x", ("end",))
    assert desktop.kind == "desktop"
    assert (line.kind, line.command) == ("command", "curl https://example.org")
    assert (group.kind, group.command) == ("command", "{ echo told; }")
    assert (map_.kind, map_.events, map_.idle_ms) == ("webhook", ("idle",), 5)


@pytest.mark.parametrize("text", ['{"webhook": ', '{"url": "x"}', "", "https://exam:ple"])
def test_a_hook_that_is_none_is_named_by_its_number(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--hook number 2"):
        hooks_of(["desktop", text])


@pytest.mark.parametrize("text", ["htps://example.org/x", "ftp://x", "http://", "https://example.org/a b"])
def test_what_looks_like_a_url_and_is_none_that_can_be_posted_to_is_no_command(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--hook number 1: webhook") as refused:
        hooks_of([text])
    assert "https://example.org/told" in refused.value.hint


def test_the_scheme_of_a_url_may_be_in_capitals() -> None:
    [hook] = hooks_of(["HTTPS://example.org/x"])
    assert hook.kind == "webhook"


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"url": "http://x"}, "unknown parameter 'url'", "did you mean 'webhook'?"),
        ({"urll": "http://x"}, "unknown parameter 'urll'", "did you mean 'webhook'?"),
        ({"cmds": "true"}, "unknown parameter 'cmds'", "did you mean 'command'?"),
        ({"idle": 5, "desktop": True}, "unknown parameter 'idle'", "did you mean 'idle_ms'?"),
        (
            {"zzz": 1},
            "unknown parameter 'zzz'",
            "a hook takes command, webhook, desktop, on, idle_ms, before_ms",
        ),
        ({"webhook": 5}, "webhook must be a string, not a number", "https://example.org/told"),
        ({"desktop": True, "idle_ms": True}, "idle_ms must be an integer", "like idle_ms: 5000"),
        ({"desktop": True, "on": 5}, "on must be a list of strings, not a number", '"deadline"'),
    ],
)
def test_a_map_is_refused_with_the_keys_that_it_really_takes(
    given: dict[str, object], message: str, hint: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        hooks_of([json.dumps(given)])
    said = explained(refused.value)
    assert said.startswith(f"--hook number 1: {message}")
    assert hint in said
    assert "--idle" not in said


def test_over_the_wire_a_hook_is_refused_with_the_same_words() -> None:
    with pytest.raises(InvalidArgument, match=re.escape("hooks[1]: unknown parameter 'url'")) as refused:
        parse(RunCommand, {"command": "true", "hooks": [{"url": "http://x"}]})
    assert refused.value.hint == "did you mean 'webhook'?"


def test_what_the_service_refuses_of_a_hook_is_told_in_the_words_of_the_command_line() -> None:
    refused = NotSupported("hooks[2]: there is no program here that shows notifications", "give a command")
    assert explained(refused).startswith("--hook number 2: there is no program")


@pytest.mark.parametrize(
    "given",
    [
        [{"webhook": "https://example.org", "idle_ms": "500", "on": "idle"}],
        {"webhook": "https://example.org", "idle_ms": 500.0, "on": ["idle"]},
        '[{"webhook": "https://example.org", "idle_ms": 500, "on": ["idle"]}]',
        ['{"webhook": "https://example.org", "idle_ms": 500, "on": "[\\"idle\\"]"}'],
    ],
)
def test_hooks_are_understood_as_language_models_type_them(given: object) -> None:
    [hook] = parse(RunCommand, {"command": "true", "hooks": given}).hooks
    assert (hook.kind, hook.events, hook.idle_ms) == ("webhook", ("idle",), 500)


@pytest.mark.parametrize("given", [5, [5], "x", [None], [{"desktop": "maybe"}], [{"nothing": 1}]])
def test_hooks_that_are_none_are_refused_in_words(given: object) -> None:
    with pytest.raises(InvalidArgument, match="hooks"):
        parse(RunCommand, {"command": "true", "hooks": given})
    assert "hooks" in understood(RunCommand, {"hooks": given})


def test_what_is_understood_of_hooks_holds_only_what_they_know() -> None:
    given = json.dumps([{"webhook": "https://example.org", "secret": "x"}])
    assert understood(RunCommand, {"hooks": given}) == {"hooks": [{"webhook": "https://example.org"}]}
