"""Every error a caller can meet, with the stable code that each edge translates."""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "InternalError",
    "InvalidArgument",
    "KeyConflict",
    "LimitReached",
    "MessageNotFound",
    "NotSupported",
    "PlanNotFound",
    "PolicyDenied",
    "ReadOnly",
    "RevisionConflict",
    "SessionNotFound",
    "ShareNotValid",
    "SpawnFailed",
    "StoreBusy",
    "StoreUnavailable",
    "TaskNotFinished",
    "TaskNotFound",
    "TasksError",
    "innermost",
]


class TasksError(Exception):
    """Root of all errors that mcp_tasks raises on purpose.

    Attributes:
        code: Stable machine-readable name, the same on every edge.
        message: What was wrong, in one sentence without a full stop.
        hint: What would be right, or an empty string.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Render as the tools do: `code: message. hint`."""
        return f"{self.code}: {self.message}. {self.hint}".rstrip()


class InternalError(TasksError):
    """A defect of ours; the details are in the server's log, never in the answer."""

    code = "internal"


class InvalidArgument(TasksError):
    """An argument is missing, unknown, of the wrong type or out of range."""

    code = "invalid_argument"


class TaskNotFound(TasksError):
    """No such task in the session; the same words whether it never existed or is another's."""

    code = "task_not_found"

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"no task {task_id!r} in this session",
            "list_tasks shows the tasks of a session; one that was cleared is gone for good",
        )


class SessionNotFound(TasksError):
    """No such session; the same words whether it never existed or is another's."""

    code = "session_not_found"

    def __init__(self, session: str) -> None:
        super().__init__(
            f"no session {session!r}",
            "list_sessions shows the sessions that there are, and with state archived those put away",
        )


class ShareNotValid(SessionNotFound):
    """The token of a share opens nothing; the same words whether it never did or does no longer."""

    def __init__(self) -> None:
        TasksError.__init__(
            self,
            "the share token is not valid, or not any more",
            "ask the owner of the session for another one",
        )


class PlanNotFound(TasksError):
    """No such plan in the session, or none at all."""

    code = "plan_not_found"

    def __init__(self, plan_id: str | None) -> None:
        which = "" if plan_id is None else f" {plan_id!r}"
        super().__init__(f"no plan{which} in this session", "session_info shows the plans of a session")


class MessageNotFound(TasksError):
    """No such live message in the journal of the session."""

    code = "message_not_found"

    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"no message {message_id!r} in this journal", "read_journal shows the messages and their ids"
        )


class KeyConflict(TasksError):
    """The idempotency key belongs to a task that was started with other arguments."""

    code = "key_conflict"


class TaskNotFinished(TasksError):
    """The task is pending or running, and the call needs a final one."""

    code = "task_not_finished"


class SpawnFailed(TasksError):
    """No supervisor could be started, so the command did not run."""

    code = "spawn_failed"


class LimitReached(TasksError):
    """A configured or physical limit stands in the way."""

    code = "limit_reached"


class PolicyDenied(TasksError):
    """The configuration forbids the call."""

    code = "policy_denied"


class StoreUnavailable(TasksError):
    """The store cannot be read or written now."""

    code = "store_unavailable"


class StoreBusy(StoreUnavailable):
    """Somebody else holds a lock of the store for very long; whether he will write is not known."""


class ReadOnly(TasksError):
    """The store was opened for reading only."""

    code = "read_only"


class NotSupported(TasksError):
    """The call is known, but not on this platform or in this version."""

    code = "not_supported"


class RevisionConflict(TasksError):
    """Another writer changed the record since it was read; read it again and decide anew."""

    code = "revision_conflict"


def innermost(error: BaseException) -> BaseException:
    """What a group of errors, however deep, is about: the first of them, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
