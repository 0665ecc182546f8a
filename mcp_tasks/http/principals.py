"""Who sends a request, as his credential has proved it; what the guard finds out and the routes go by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from pydantic import SecretStr

from mcp_tasks.errors import PolicyDenied
from mcp_tasks.models import Role

__all__ = ["READ_SCOPE", "WRITE_SCOPE", "Principal", "principal_of"]

READ_SCOPE: Final = "mcp-tasks:read"
WRITE_SCOPE: Final = "mcp-tasks:write"

_ROLE_CLAIM: Final = "mcp-tasks/role"
_OWNER_CLAIM: Final = "mcp-tasks/owner"
_SHARE_CLAIM: Final = "mcp-tasks/share"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may come in.

    Attributes:
        owner: Whose tasks are his: the operating-system user for the built-in token, else a name made of
            the subject, or of the share, that can be no user's.
        role: What he may do with them.
        share: Token of the share that he has come with. It leads him into its session, and nowhere else.
    """

    owner: str
    role: Role = "owner"
    share: str | None = field(default=None, repr=False)

    def as_user(self, token: str, *, client_id: str, issuer: str | None = None) -> AuthenticatedUser:
        """The same as the SDK has it in `scope["user"]`; it binds an MCP session to its principal by that."""
        claims: dict[str, Any] = {_OWNER_CLAIM: self.owner, _ROLE_CLAIM: self.role}
        if self.share is not None:
            claims[_SHARE_CLAIM] = SecretStr(self.share)
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
            share: SecretStr | None = claims.get(_SHARE_CLAIM)
            return Principal(
                claims[_OWNER_CLAIM],
                claims[_ROLE_CLAIM],
                None if share is None else share.get_secret_value(),
            )
    raise PolicyDenied("this needs a token", "send Authorization: Bearer and the token of the server")
