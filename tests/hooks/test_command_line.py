from __future__ import annotations

import json

import pytest

from mcp_tasks.cli.hook_options import hooks_of
from mcp_tasks.errors import InvalidArgument
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
