"""Who sends a request, as his credential has proved it; what the guard finds out and the routes go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

from mcp_tasks.errors import PolicyDenied
from mcp_tasks.models import Role

__all__ = ["READ_SCOPE", "WRITE_SCOPE", "Principal", "principal_of"]

READ_SCOPE: Final = "mcp-tasks:read"
WRITE_SCOPE: Final = "mcp-tasks:write"

_ROLE_CLAIM: Final = "mcp-tasks/role"
_OWNER_CLAIM: Final = "mcp-tasks/owner"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may come in.

    Attributes:
        owner: Whose tasks are his: the operating-system user for the built-in token, else a name made of
            the subject that can be no user's.
        role: What he may do with them.
    """

    owner: str
    role: Role = "owner"

    def as_user(self, token: str, *, client_id: str, issuer: str | None = None) -> AuthenticatedUser:
        """The same as the SDK has it in `scope["user"]`; it binds an MCP session to its principal by that."""
        claims: dict[str, Any] = {_OWNER_CLAIM: self.owner, _ROLE_CLAIM: self.role}
        if issuer is not None:
            claims["iss"] = issuer
        return AuthenticatedUser(
            AccessToken(token=token, client_id=client_id, scopes=[], subject=self.owner, claims=claims)
        )


def principal_of(user: object) -> Principal:
    """The principal of a request, from its `scope["user"]`. Raises PolicyDenied where nobody is known."""
    if isinstance(user, AuthenticatedUser):
        claims = user.access_token.claims or {}
        if _OWNER_CLAIM in claims:
            return Principal(claims[_OWNER_CLAIM], claims[_ROLE_CLAIM])
    raise PolicyDenied("this needs a token", "send Authorization: Bearer and the token of the server")
