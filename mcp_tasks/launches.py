"""From a request to what is registered (`Spec`) and what is launched (`Launch`)."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from mcp_tasks.errors import InvalidArgument, NotSupported
from mcp_tasks.models import Spec, as_task_id
from mcp_tasks.ports import Launch
from mcp_tasks.redaction import redact_command, redact_text, secret_values
from mcp_tasks.requests import RunCommand, RunPlan

__all__ = [
    "OURS",
    "TASK_VARIABLE",
    "Defaults",
    "absolute",
    "can_run",
    "fingerprint",
    "kept_key",
    "launch_of",
    "plan_fingerprint",
    "same_plan",
    "same_request",
    "spec_of",
]

TASK_VARIABLE = "MCP_TASKS_TASK"
"""In the environment of every command: the id of its task, which its descendants inherit."""

OURS = ("MCP_TASKS_TOKEN", "MCP_TASKS_KEY", "MCP_TASKS_SHARE", "MCP_TASKS_HOOK_SECRET")
"""What commands do not inherit of the server's environment."""

_DEFAULT_SHELL = "/bin/sh"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request leaves open.

    Attributes:
        cwd: Of the server.
        environment: Of the server, with what the session's workspace adds; a request's `env` goes on top.
        lifeline: End commands with the server.
        workspace: Where the session works; None means `cwd`.
        shell: Of the session; None means the usual one.
        secret_values: Of `environment`, to be taken out of whatever is recorded.
    """

    cwd: str
    environment: Mapping[str, str]
    max_output_bytes: int
    min_free_bytes: int
    lifeline: bool
    workspace: str | None = None
    shell: str | None = None
    secret_values: tuple[str, ...] = field(default=(), repr=False)


def spec_of(request: RunCommand, defaults: Defaults) -> Spec:
    """What may be kept of a request. Raises InvalidArgument, NotSupported; looks, but changes nothing."""
    if request.pty:
        raise NotSupported("pty is not supported yet", "leave pty out")
    limit = defaults.max_output_bytes if request.max_output_bytes is None else request.max_output_bytes
    values = (*secret_values(request.env, request.secrets), *defaults.secret_values)
    return Spec(
        command=redact_command(request.command, values),
        cwd=redact_text(_directory(request.cwd, defaults), values),
        label=redact_text(request.label, values) if request.label is not None else None,
        key=kept_key(request),
        fingerprint=fingerprint(request, defaults, secrets.token_hex(8)) if request.key is not None else "",
        interactive=request.interactive,
        timeout_ms=request.timeout_ms,
        grace_ms=request.grace_ms,
        max_output_bytes=limit,
        on_output_limit=request.on_output_limit,
        after=tuple(dict.fromkeys(map(as_task_id, request.after))),
        retries=request.retries,
    )


def kept_key(request: RunCommand | RunPlan) -> str | None:
    """The idempotency key as it is registered and looked up: without the secrets that the request tells of.

    Those of the server and of the workspace stay out of it: a key means the same on every server.
    """
    if request.key is None:
        return None
    parts = request.commands if isinstance(request, RunPlan) else (request,)
    return redact_text(
        request.key, [value for part in parts for value in secret_values(part.env, part.secrets)]
    )


def launch_of(request: RunCommand, spec: Spec, task_id: str, defaults: Defaults) -> Launch:
    """What the supervisor is given and no record keeps. Raises InvalidArgument."""
    command, cwd = request.command, _asked_for(request.cwd, defaults)
    argv = (
        (request.shell or defaults.shell or _DEFAULT_SHELL, "-c", command)
        if isinstance(command, str)
        else tuple(command)
    )
    env = {name: value for name, value in defaults.environment.items() if name not in OURS}
    for name, value in request.env.items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    if isinstance(command, str) and request.shell is None:
        _check_shell(defaults.shell, cwd, env)
    env[TASK_VARIABLE] = task_id
    return Launch(
        argv=argv,
        cwd=cwd,  # not the record's, which may have been redacted
        env=env,
        stdin=(request.stdin or "").encode("utf-8", "surrogatepass"),
        interactive=spec.interactive,
        timeout_ms=spec.timeout_ms,
        grace_ms=spec.grace_ms,
        max_output_bytes=spec.max_output_bytes,
        on_output_limit=spec.on_output_limit,
        min_free_bytes=defaults.min_free_bytes,
        lifeline=defaults.lifeline,
    )


def fingerprint(request: RunCommand, defaults: Defaults, salt: str) -> str:
    """Salted hash of what an idempotency key stands for: everything but wait, view and label.

    A default that is given in so many words counts as not given.
    """
    compared = request.model_dump(
        mode="json",
        exclude={
            *("session", "label", "clear_finished", "secrets"),
            *("wait_ms", "until", "pattern", "idle_ms", "show", "max_bytes", "ansi"),
            *_key_where_whole(request),
            *(() if request.hooks else ("hooks",)),  # there were none once
        },
    )
    if request.cwd is not None and absolute(request.cwd, defaults.cwd) == absolute(defaults.cwd, "/"):
        compared["cwd"] = None
    if request.shell == _DEFAULT_SHELL:
        compared["shell"] = None
    digest = hashlib.blake2b(json.dumps(compared, sort_keys=True).encode(), key=salt.encode(), digest_size=16)
    return f"{salt}.{digest.hexdigest()}"


def same_request(spec: Spec, request: RunCommand, defaults: Defaults) -> bool:
    """Whether a task was started with the arguments of this request."""
    salt, _, _ = spec.fingerprint.partition(".")
    return hmac.compare_digest(spec.fingerprint, fingerprint(request, defaults, salt))


def plan_fingerprint(request: RunPlan, salt: str) -> str:
    """The same for a plan, whose first task keeps it: everything but wait and name."""
    compared = request.model_dump(
        mode="json",
        exclude={
            **dict.fromkeys(("session", "name", "wait_ms", *_key_where_whole(request)), True),
            "commands": {"__all__": {"session", "secrets"}},
        },
    )
    digest = hashlib.blake2b(json.dumps(compared, sort_keys=True).encode(), key=salt.encode(), digest_size=16)
    return f"{salt}.{digest.hexdigest()}"


def same_plan(spec: Spec, request: RunPlan) -> bool:
    """Whether a task is the first of a plan that was started with the arguments of this request."""
    salt, _, _ = spec.fingerprint.partition(".")
    return spec.plan is not None and hmac.compare_digest(spec.fingerprint, plan_fingerprint(request, salt))


def _key_where_whole(request: RunCommand | RunPlan) -> tuple[str, ...]:
    """What a fingerprint leaves out of a key: all, but where two keys may be kept as the same text."""
    return ("key",) if kept_key(request) == request.key else ()


def _joined(cwd: str, default: str) -> str:
    return os.path.join(default, os.path.expanduser(cwd))


def absolute(cwd: str, default: str) -> str:
    """A directory as it is registered: absolute, `~` and `..` resolved, links as they are."""
    return os.path.normpath(_joined(cwd, default))


def can_run(program: str, cwd: str, environment: Mapping[str, str]) -> bool:
    """Whether a program is there and may be executed, named as execvp(3) takes it."""
    named = os.path.join(cwd, program) if "/" in program else program
    return shutil.which(named, path=environment.get("PATH", os.defpath)) is not None


def _asked_for(cwd: str | None, defaults: Defaults) -> str:
    base = defaults.workspace or defaults.cwd
    return absolute(base if cwd is None else cwd, base)


def _check_shell(shell: str | None, cwd: str, env: Mapping[str, str]) -> None:
    """Name a shell of the workspace that cannot be started: the call says nothing of it."""
    if shell is not None and not can_run(shell, cwd, env):
        raise InvalidArgument(
            f"shell {shell!r} of the session's workspace is not there, or not executable",
            "give shell, or set the workspace's shell anew with update_session",
        )


def _directory(cwd: str | None, defaults: Defaults) -> str:
    base = defaults.workspace or defaults.cwd
    path = _joined(cwd, base) if cwd is not None else base
    if cwd is None and defaults.workspace is not None and not os.path.isdir(path):
        raise InvalidArgument(
            f"cwd {path!r} of the session's workspace is no directory any more",
            "give cwd, or set the workspace's cwd anew with update_session",
        )
    # As it was given: who is far away is not told where the server was started.
    named = f"cwd {cwd!r}" if cwd is not None else "the folder that the server was started in"
    if not os.path.isdir(path):
        raise InvalidArgument(f"{named} is not a directory", "give the path of an existing directory")
    if not os.access(path, os.X_OK):
        raise InvalidArgument(f"{named} cannot be entered", "check its permissions")
    return absolute(path, base)
