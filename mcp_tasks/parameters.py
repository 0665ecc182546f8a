"""The types of the parameters that requests are made of, each with the check that it needs."""

from __future__ import annotations

import os
import signal as signals
import sys
from collections.abc import Collection, Mapping
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.models import SESSION_NAME
from mcp_tasks.refusals import kind_of

__all__ = [
    "MAX_PAGE_BYTES",
    "Ansi",
    "Command",
    "Cwd",
    "Environment",
    "Ms",
    "Name",
    "Names",
    "Pattern",
    "PositiveMs",
    "SessionName",
    "Shell",
    "Show",
    "SignalName",
    "Stream",
    "TaskIds",
    "Until",
    "ViewBytes",
    "WorkspaceCwd",
    "WorkspaceShell",
    "check_marked",
    "signal_name",
]

MAX_PAGE_BYTES = 262_144
"""The most output bytes that one answer shows."""

_MOST_VARIABLES = 2_000

_LONGEST_COMMAND: Final = min(os.sysconf("SC_ARG_MAX"), 6 * 2**20)
"""Bytes of all arguments with what the system adds to each; 6 MiB is the most of Linux."""

_LONGEST_ARGUMENT: Final = 131_071 if sys.platform == "linux" else _LONGEST_COMMAND
_POINTER: Final = 8

_MAX_MS = 10 * 365 * 86_400_000
"""Ten years: above it a time is a mistake, and sums of times stay far from any platform's limit."""


def signal_name(value: str) -> str:
    """Normalise a signal (`SIGINT`, `int`, `2`) to its `SIG` name.

    Raises:
        InvalidArgument: This platform has no such signal.
    """
    word = value.strip().upper()
    try:
        if word.isascii() and word.isdigit():
            return signals.Signals(int(word)).name
        return signals.Signals[word if word.startswith("SIG") else f"SIG{word}"].name
    except (KeyError, ValueError):
        raise InvalidArgument(
            "signal is not a signal of this platform", "give a name like SIGTERM, SIGINT or SIGKILL"
        ) from None


def check_marked(secrets: Collection[str], env: Mapping[str, str | None]) -> None:
    """Make sure that what is marked as secret is there. Raises InvalidArgument."""
    for number, name in enumerate(secrets, 1):
        if env.get(name) is None:
            # It is not repeated: somebody may have given the secret itself.
            raise InvalidArgument(
                f"secrets needs names of variables that env sets, and its number {number} is none",
                "secrets holds names of variables in env, not their values",
            )


def _session(value: str) -> str:
    if not SESSION_NAME.fullmatch(value):
        raise InvalidArgument(
            "session is not a session name",
            "a name has 1 to 128 of the characters A-Z a-z 0-9 . _ - and is not . or ..",
        )
    return value


def _command(value: object) -> object:
    if isinstance(value, str):
        if not value.strip():
            raise InvalidArgument("command is empty", "give the command to run, like 'make test'")
        _no_nul("command", value)
        _no_longer("command", _size(value), _LONGEST_ARGUMENT)
        return value
    if isinstance(value, (list, tuple)):
        if not value or value[0] == "":
            raise InvalidArgument(
                "command is empty", "give the program and its arguments, like ['make', 'test']"
            )
        for index, part in enumerate(value):
            if not isinstance(part, str):
                raise InvalidArgument(
                    f"command[{index}] must be a string, not {kind_of(part)}",
                    "every argument is a string: '5', not 5",
                )
            _no_nul(f"command[{index}]", part)
            _no_longer(f"command[{index}]", _size(part), _LONGEST_ARGUMENT)
        _no_longer("command", sum(_size(part) + 1 + _POINTER for part in value), _LONGEST_COMMAND)
        return tuple(value)
    raise InvalidArgument(
        f"command must be a string or a list of strings, not {kind_of(value)}",
        "a string is run by the shell, a list without one",
    )


def _environment(value: dict[str, str | None]) -> dict[str, str | None]:
    for name, content in value.items():
        if not name or "=" in name or "\0" in name:
            raise InvalidArgument(
                "env has a name that cannot be one", "a name is not empty and holds neither '=' nor NUL"
            )
        if content is not None and "\0" in content:
            raise InvalidArgument(f"env[{name!r}] contains a NUL byte", "the system cannot pass NUL bytes on")
    return value


def _directory(value: str) -> str:
    _no_nul("cwd", value)
    return value


def _program(value: str) -> str:
    _no_nul("shell", value)
    return value


def _no_nul(name: str, value: str) -> None:
    if "\0" in value:
        raise InvalidArgument(f"{name} contains a NUL byte", "the system cannot pass NUL bytes on")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _no_longer(name: str, size: int, most: int) -> None:
    if size > most:
        raise InvalidArgument(
            f"{name} has {size} bytes, and the system cannot start what has more than {most}",
            "put it into a file, or give what is long as stdin",
        )


def _sequence(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Ms: TypeAlias = Annotated[int, Field(ge=0, le=_MAX_MS)]
PositiveMs: TypeAlias = Annotated[int, Field(ge=1, le=_MAX_MS)]
ViewBytes: TypeAlias = Annotated[int, Field(ge=1, le=MAX_PAGE_BYTES)]
Command: TypeAlias = Annotated[str | tuple[str, ...], BeforeValidator(_command)]
Environment: TypeAlias = Annotated[
    dict[str, str | None], Field(max_length=_MOST_VARIABLES), AfterValidator(_environment)
]
Shell: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_program)]
SessionName: TypeAlias = Annotated[str, AfterValidator(_session)]
Cwd: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_directory)]
WorkspaceCwd: TypeAlias = Annotated[str, AfterValidator(_directory)]
WorkspaceShell: TypeAlias = Annotated[str, AfterValidator(_program)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]
Pattern: TypeAlias = Annotated[str, Field(min_length=1, max_length=10_000)]
SignalName: TypeAlias = Annotated[str, AfterValidator(signal_name)]
Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_sequence), Field(max_length=1_000)]
TaskIds: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_sequence), Field(max_length=1_000)]
Until: TypeAlias = Literal["exit", "output", "idle", "pattern"]
Show: TypeAlias = Literal["new", "tail", "none"]
Ansi: TypeAlias = Literal["strip", "keep"]
Stream: TypeAlias = Literal["both", "stdout", "stderr"]
