"""How a request says what is to be done when something happens to a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic import model_validator as _model_validator

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.models import HookEvent, HookKind
from mcp_tasks.parameters import Command, PositiveMs
from mcp_tasks.requests.request import Request

__all__ = ["HookList", "TaskHook"]

_MOST = 20
_LONGEST_URL = 4_096


def _url(value: str) -> str:
    """Check a URL without repeating it: it may hold a secret."""
    hint = 'give an absolute URL, like "https://example.org/told"'
    if any(not "!" <= char <= "~" for char in value):
        raise InvalidArgument("webhook has characters that no URL has", hint)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise InvalidArgument("webhook is not a URL", hint) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InvalidArgument("webhook is not an http or https URL", hint)
    return value


def _events(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Url: TypeAlias = Annotated[str, Field(min_length=1, max_length=_LONGEST_URL), AfterValidator(_url)]
Events: TypeAlias = Annotated[
    tuple[HookEvent, ...], BeforeValidator(_events), Field(min_length=1, max_length=_MOST)
]


class TaskHook(Request):
    """One hook: a command, a webhook or a desktop notification.

    Attributes:
        command: Run by the shell, or without one where it is a list. It is given what happened as JSON on
            its stdin, and in variables of its environment.
        webhook: An http or https URL, to which what happened is posted as JSON.
        on: None means `end`, and what `idle_ms` and `before_ms` imply.
        idle_ms: Silence after which `idle` is told, once for each silence; None means 300,000.
        before_ms: Before the end of `timeout_ms`, when `deadline` is told; None means 60,000.
    """

    tool = "a hook"
    habits: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("url", "uri", "endpoint", "address", "post"), "webhook"),
        **dict.fromkeys(("cmd", "run", "exec", "script", "shell"), "command"),
        **dict.fromkeys(("notify", "notification"), "desktop"),
        **dict.fromkeys(("event", "events", "when"), "on"),
        "idle": "idle_ms",
        "before": "before_ms",
    }

    command: Command | None = Field(default=None, repr=False)
    webhook: Url | None = Field(default=None, repr=False)
    desktop: bool = False
    on: Events | None = None
    idle_ms: PositiveMs | None = None
    before_ms: PositiveMs | None = None

    @_model_validator(mode="after")
    def _one_kind(self) -> TaskHook:
        if self.session is not None:
            raise InvalidArgument("session does not go with a hook", "a hook goes with its task or session")
        given = [self.command is not None, self.webhook is not None, self.desktop]
        if sum(given) != 1:
            what = "neither command, webhook nor desktop" if not any(given) else "more than one target"
            raise InvalidArgument(
                f"a hook has {what}", 'give one of them, like {"webhook": "https://example.org/told"}'
            )
        for name, event in (("idle_ms", "idle"), ("before_ms", "deadline")):
            if getattr(self, name) is not None and event not in self.events:
                raise InvalidArgument(f"{name} goes with on: {event}", f"add {event} to on, or leave on out")
        return self

    @classmethod
    def _parameters(cls) -> list[str]:
        return [name for name in cls.model_fields if name != "session"]

    @property
    def kind(self) -> HookKind:
        """Which of the three it is."""
        if self.command is not None:
            return "command"
        return "webhook" if self.webhook is not None else "desktop"

    @property
    def events(self) -> tuple[HookEvent, ...]:
        """What it is done for, each once."""
        if self.on is not None:
            return tuple(dict.fromkeys(self.on))
        implied: list[HookEvent] = ["end"]
        if self.idle_ms is not None:
            implied.append("idle")
        if self.before_ms is not None:
            implied.append("deadline")
        return tuple(implied)


def _hooks(value: object) -> object:
    if not isinstance(value, (list, tuple)):
        return value
    hooks: list[TaskHook] = []
    for number, hook in enumerate(value, 1):
        if isinstance(hook, TaskHook):
            hooks.append(hook)
            continue
        if not isinstance(hook, dict) or not all(isinstance(name, str) for name in hook):
            raise InvalidArgument(
                f"hooks[{number}] is no hook", 'give a map, like {"webhook": "https://example.org/told"}'
            )
        try:
            hooks.append(TaskHook(**hook))
        except InvalidArgument as error:
            raise InvalidArgument(f"hooks[{number}]: {error.message}", error.hint) from None
    return tuple(hooks)


HookList: TypeAlias = Annotated[tuple[TaskHook, ...], BeforeValidator(_hooks), Field(max_length=_MOST)]
