"""What is answered to a request that does not come in: problem details, as the HTTP API has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.responses import JSONResponse

from mcp_tasks.api.problems import MEDIA_TYPE, problem

__all__ = ["Refusal", "Refused"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused.

    Attributes:
        status: Of the answer.
        message: What was wrong; nothing of what was sent is quoted.
        hint: What would be right.
        headers: That the answer has besides.
    """

    status: int
    message: str
    hint: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> JSONResponse:
        """The answer. The connection is closed, for what follows may be a body that nobody reads."""
        return JSONResponse(
            problem(self.status, self.message, self.hint),
            self.status,
            {**self.headers, "Connection": "close", "Cache-Control": "no-store"},
            MEDIA_TYPE,
        )


class Refused(Exception):
    """Raised where a request is refused."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
