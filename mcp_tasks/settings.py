"""What can be set, and where it comes from: argument, environment, file, default, in this order.

A setting `max_running` is the argument `max_running`, the variable `MCP_TASKS_MAX_RUNNING` and the
key `max_running` of `config.toml` in the platform's configuration directory.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from mcp_tasks.errors import InvalidArgument, NotSupported, ShareNotValid
from mcp_tasks.models import SESSION_NAME

__all__ = ["ENV_PREFIX", "Settings", "StoreName", "ToolSet", "config_file", "misspelt", "user_name"]

ENV_PREFIX = "MCP_TASKS_"
_APP = "mcp-tasks"

StoreName = Literal["memory", "json", "sqlite", "redis"]
ToolSet = Literal["core", "standard", "full"]

_SIZE = re.compile(r"\s*(\d{1,18})\s*(?:([KMGT])i?B?|B)?\s*", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_NEAR = 0.75
"""Likeness from which a name is taken for a slip: `MAX_RUNING` is one, the task id in `TASK` is not."""
_DAYS_WORDS = "a number of days, or never"
_SIZE_WORDS = "a number of bytes, or one with a unit such as 500MiB or 8GiB"


def config_file() -> Path:
    """Where the settings of this user are kept; the file need not exist."""
    return platformdirs.user_config_path(_APP, appauthor=False) / "config.toml"


@functools.cache
def user_name() -> str:
    """Name of the operating-system user, who owns what is started on this machine.

    Asked of the system by user id and not of the environment, which anybody can set. A user id
    without a name, as containers have them, stands for itself.
    """
    if sys.platform == "win32":
        import getpass

        return getpass.getuser()
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _default_max_running() -> int:
    return max(16, 4 * (os.cpu_count() or 1))


def _bytes(value: object) -> object:
    """Read a size with a unit; what is none is left for pydantic to refuse."""
    if isinstance(value, str) and (size := _SIZE.fullmatch(value)):
        return int(size[1]) * _UNITS[(size[2] or "").upper()]
    return value


def _never(value: object) -> object:
    """Read the word for no limit; None cannot be written in the environment or in TOML."""
    return None if isinstance(value, str) and value.strip().lower() == "never" else value


def _split(value: object) -> object:
    """Read words with commas between, as the environment and one argument have them."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


_Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
_Days = Annotated[Annotated[float, Field(ge=0, le=36_500)] | None, BeforeValidator(_never)]
_Size = Annotated[int, BeforeValidator(_bytes), Field(ge=0, le=2**62)]


class Settings(BaseSettings):
    """Everything that is decided before a server or a command starts.

    Arguments that are None count as not given. The description of a field says what is right, and
    is the hint of the error that a wrong one raises.

    Attributes:
        dir: State directory, absolute.
        session: The session that callers mean when they name none; None where nobody has said.
        server: Where commands do their work; None means here. A server itself takes no notice of it.
        max_running: Running tasks, over all servers of the store.
        queue_limit: Pending tasks, over all servers of the store.
        max_wait_ms: Longest time that one call waits.
        max_output_bytes: Of one task, over both streams; 0 means no limit.
        min_free_bytes: Of the disk, under which no output is written and no task is taken.
        archive_days: Days without use after which a session is archived; None means never.
        retention_days: Days after which an archive is removed; None means never.
        journal_days: Days without use after which a journal is folded; None means never.
        journal_limit: Live messages of a journal, beyond which the oldest are folded; 0 means no limit.
        cleanup_hour: Local hour from which on the cleanup of the day is due.
        backups: How many backups are kept.
        memory_tasks: Finished tasks that the memory store keeps; 0 means no limit.
        memory_bytes: Of finished tasks with their output, in the memory store; 0 means no limit.
        memory_hours: Hours after which the memory store forgets a finished task; None means never.
        hook_secret: What webhooks are signed with; None means the secret of the state directory.
        share: Token of the share through which everything is done, in the session that it opens.
        host: Address that is listened at over HTTP.
        port: 0 means any that is free.
        uds: Socket file that is listened at instead of an address.
        max_connections: Open connections of clients over HTTP.
        token: Wins over the token of the state directory.
        no_token: Whoever reaches the server comes in as its user; on loopback and a socket file only.
        allowed_hosts: Names under which the server is reached, with or without a port.
        allowed_origins: Of web pages that may talk to the server.
        requests_per_second: Of one principal, over a few seconds; 0 means no limit.
        max_request_bytes: Of the body of one request over HTTP.
        oauth_issuer: Its access tokens are taken as well; None means the built-in token alone.
        oauth_audience: What such a token must be meant for.
        oauth_scopes: What such a token must have besides one of ours.
        oauth_jwks_url: Where the issuer's keys are; None asks the issuer.
        auto_save: False keeps everything in memory.
        key: What secrets at rest are sealed with; None means the key file or the keyring.
        key_file: None means a file in the platform's configuration directory.

    Raises:
        InvalidArgument: A setting is unknown or wrong; the message names it and its source.
        NotSupported: The store is known, but not in this version.
        ShareNotValid: The token of a share is empty.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    dir: Path = Field(
        default_factory=lambda: platformdirs.user_state_path(_APP, appauthor=False),
        description="the path of a directory",
    )
    store: StoreName = Field(default="json", description="memory, json or sqlite")
    session: str | None = Field(
        default=None, description="1 to 128 of the characters A-Z a-z 0-9 . _ -, but not . or .."
    )
    server: str | None = Field(default=None, description="http://…, https://… or unix:PATH")
    max_running: int = Field(
        default_factory=_default_max_running, ge=1, le=100_000, description="an integer from 1 to 100000"
    )
    queue_limit: int = Field(default=1_000, ge=0, le=10_000_000, description="an integer from 0 to 10000000")
    max_wait_ms: int = Field(
        default=25_000, ge=0, le=3_600_000, description="milliseconds, an integer from 0 to 3600000"
    )
    max_output_bytes: _Size = Field(default=8 * 2**30, description=f"{_SIZE_WORDS}; 0 for no limit")
    min_free_bytes: _Size = Field(default=2**30, description=f"{_SIZE_WORDS}; 0 for no limit")
    archive_days: _Days = Field(default=30.0, description=_DAYS_WORDS)
    retention_days: _Days = Field(default=None, description=_DAYS_WORDS)
    journal_days: _Days = Field(default=7.0, description=_DAYS_WORDS)
    journal_limit: int = Field(
        default=200, ge=0, le=10_000_000, description="an integer from 0 to 10000000; 0 for no limit"
    )
    cleanup_hour: int = Field(default=3, ge=0, le=23, description="an hour from 0 to 23")
    backups: int = Field(default=7, ge=1, le=100_000, description="an integer from 1 to 100000")
    memory_tasks: int = Field(
        default=10_000, ge=0, le=10_000_000, description="an integer from 0 to 10000000; 0 for no limit"
    )
    memory_bytes: _Size = Field(default=4 * 2**30, description=f"{_SIZE_WORDS}; 0 for no limit")
    memory_hours: _Days = Field(default=None, description="hours, like 12 or 0.5, or never")
    auto_save: bool = Field(default=True, description="on or off")
    tools: ToolSet = Field(default="standard", description="core, standard or full")
    host: str = Field(default="127.0.0.1", description="an address of this machine")
    port: int = Field(default=8377, ge=0, le=65_535, description="a port from 0 to 65535; 0 takes a free one")
    uds: Path | None = Field(default=None, description="the path of a socket file")
    max_connections: int = Field(default=1_000, ge=1, le=100_000, description="an integer from 1 to 100000")
    token: SecretStr | None = Field(default=None, description="a text that is hard to guess")
    no_token: bool = Field(default=False, description="on or off")
    allowed_hosts: _Words = Field(default=(), description="host names, with commas between")
    allowed_origins: _Words = Field(
        default=(), description="origins such as https://app.example.com, with commas between"
    )
    requests_per_second: int = Field(
        default=1_000, ge=0, le=1_000_000, description="an integer from 0 to 1000000; 0 for no limit"
    )
    max_request_bytes: Annotated[int, BeforeValidator(_bytes), Field(ge=1_024, le=2**30)] = Field(
        default=4 * 2**20, description="a number of bytes, or one with a unit, from 1KiB to 1GiB"
    )
    oauth_issuer: str | None = Field(default=None, description="the URL of an issuer of access tokens")
    oauth_audience: str | None = Field(default=None, description="the audience of access tokens")
    oauth_scopes: _Words = Field(default=(), description="scopes, with commas between")
    oauth_jwks_url: str | None = Field(default=None, description="the URL of the issuer's keys")
    share: SecretStr | None = Field(default=None, description="the token of a share")
    hook_secret: SecretStr | None = Field(default=None, description="a text that is hard to guess")
    key: SecretStr | None = Field(
        default=None, description="32 bytes in base64 (several with commas between), or a passphrase"
    )
    key_file: Path | None = Field(default=None, description="a file outside of the state directory")
    key_source: Literal["file", "keyring"] = Field(default="file", description="file or keyring")

    def __init__(self, **given: Any) -> None:
        arguments = {name: value for name, value in given.items() if value is not None}
        if unknown := next((name for name in arguments if name not in type(self).model_fields), None):
            raise _unknown(unknown, "argument")
        if os.environ.get(f"{ENV_PREFIX}SHARE") == "":  # the one setting that empty is not the same as none
            arguments.setdefault("share", SecretStr(""))
        if "store" in arguments:  # an argument wins over an MCP_TASKS_AUTO_SAVE of the environment
            arguments.setdefault("auto_save", arguments["store"] != "memory")
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            # `from None`: the original would show the values, one of which is a secret.
            raise _refusal(error, arguments) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic-settings calls by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Argument, environment, file; no .env of whatever folder the server is started in."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, _read_file())

    @field_validator("dir", "key_file", "uds")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else Path(os.path.abspath(_expanded(value)))

    @field_validator("session")
    @classmethod
    def _well_named(cls, value: str | None) -> str | None:
        if value is not None and not SESSION_NAME.fullmatch(value):
            raise ValueError("not a session name")
        return value

    @field_validator("share")
    @classmethod
    def _a_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value():
            raise ShareNotValid  # who means to come through a share must not come as the owner
        return value

    @model_validator(mode="before")
    @classmethod
    def _unsaved(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Only the word for "off" matters here; what is neither on nor off is refused as a field.
        if str(values.get("auto_save", "on")).strip().lower() in ("off", "false", "no", "n", "f", "0"):
            return {**values, "store": "memory"}
        return values

    @model_validator(mode="after")
    def _available(self) -> Settings:
        if self.store == "redis":
            raise NotSupported("the redis store is not available in this version", "use json or sqlite")
        return self

    @property
    def owner(self) -> str:
        """Who owns the tasks that are started on stdio and on the command line."""
        return user_name()


def misspelt(names: Iterable[str]) -> dict[str, str]:
    """Names of environment variables that are nearly those of settings, with what they should be."""
    near: dict[str, str] = {}
    for name in names:
        setting = name.upper().removeprefix(ENV_PREFIX).lower()
        if name.upper().startswith(ENV_PREFIX) and setting not in Settings.model_fields:
            for meant in difflib.get_close_matches(setting, Settings.model_fields, n=1, cutoff=_NEAR):
                near[name] = ENV_PREFIX + meant.upper()
    return near


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # ~somebody, whom the system does not know
        return path


def _read_file() -> dict[str, Any]:
    path = config_file()
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InvalidArgument(f"{path} cannot be read: {reason}", "make it readable, or remove it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"{path} is not valid TOML: {error}", "correct the file, or remove it"
        ) from None
    for name in values:
        if name not in Settings.model_fields:
            raise _unknown(name, str(path))
    folder = values.get("dir")
    if isinstance(folder, str) and not _expanded(Path(folder)).is_absolute():
        # Servers are started in any folder, so a relative path would mean another one each time.
        raise InvalidArgument(
            f"dir in {path} is not absolute", "give an absolute path, or one that begins with ~/"
        )
    return values


def _unknown(name: str, source: str) -> InvalidArgument:
    known = sorted(Settings.model_fields)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return InvalidArgument(f"unknown setting {name!r} in {source}", hint)


def _refusal(error: ValidationError, arguments: dict[str, Any]) -> InvalidArgument:
    """Name the setting, the source that won, and what would be right; never the value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = str(first["loc"][0])
    variable = ENV_PREFIX + name.upper()
    if name in arguments:
        source = f"the argument {name}"
    elif any(key.upper() == variable for key in os.environ):
        source = f"the environment variable {variable}"
    else:
        source = f"{name} in {config_file()}"
    return InvalidArgument(
        f"{source} is not right", f"it should be {Settings.model_fields[name].description}"
    )
