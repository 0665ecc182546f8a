"""What all requests have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mcp_tasks.parameters import SessionName
from mcp_tasks.refusals import refusal

__all__ = ["Request"]


class Request(BaseModel):
    """What every request has in common: strict, frozen, and silent about the values it refuses.

    Attributes:
        session: The session as the caller named it; who calls the service resolves it into a Caller.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    tool: ClassVar[str]
    """Name of the MCP tool that carries this request."""

    habits: ClassVar[Mapping[str, str]] = {}
    """Names that are given by habit and not taken, with the parameters that they stand for."""

    session: SessionName | None = None

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            # `from None`: the original would show the values in a traceback.
            first = error.errors(include_url=False, include_input=True)[0]
            raise refusal(first, self.tool, self._parameters(), self.habits) from None

    @classmethod
    def _parameters(cls) -> list[str]:
        """What it takes, as a refusal tells it."""
        return list(cls.model_fields)
