"""What commands of a session are given where a call says nothing else."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

from mcp_tasks.errors import InvalidArgument, StoreUnavailable
from mcp_tasks.launches import Defaults, absolute, can_run
from mcp_tasks.models import Session, SessionKey, Workspace
from mcp_tasks.ports import Sealer
from mcp_tasks.redaction import secret_values
from mcp_tasks.service.sessions.records import SessionRecords

__all__ = ["Workspaces"]

log = logging.getLogger(__name__)

_KEPT = 256
_NO_WORKSPACE = Workspace()


class Workspaces:
    """The defaults of a server as the workspaces of sessions change them. Blocking, safe for many threads.

    Env values are sealed in the records. What was unsealed is kept until the record changes, so that a
    start costs nothing for it.
    """

    def __init__(self, records: SessionRecords, sealer: Sealer, defaults: Defaults) -> None:
        self._records = records
        self.sealer = sealer
        self._defaults = defaults
        self._known: OrderedDict[SessionKey, tuple[Workspace, Defaults]] = OrderedDict()
        self._guard = threading.Lock()

    def of(self, key: SessionKey) -> tuple[Session | None, Defaults]:
        """A session as it is, None where there is none, and what its commands are given.

        Raises:
            StoreUnavailable: A value of its environment cannot be unsealed.
        """
        try:
            session = self._records.find(key)
        except StoreUnavailable as error:
            # A command runs though the store is gone: as the session was when it was last seen.
            log.warning("a session cannot be read: %s", error)
            known = self._known.get(key)
            return None, known[1] if known is not None else self._defaults
        if session is None or session.workspace == _NO_WORKSPACE:
            return session, self._defaults
        known = self._known.get(key)
        if known is None or known[0] != session.workspace:
            known = session.workspace, self._applied(session.workspace)
            with self._guard:
                self._known[key] = known
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return session, known[1]

    def _applied(self, workspace: Workspace) -> Defaults:
        environment, values = self._defaults.environment, self._defaults.secret_values
        if workspace.env:
            added = {name: self.sealer.unseal(value) for name, value in workspace.env.items()}
            environment = {**environment, **added}
            values = (*values, *secret_values(added))
        return replace(
            self._defaults,
            environment=environment,
            secret_values=values,
            workspace=workspace.cwd,
            shell=workspace.shell,
        )

    def secret_values(self, key: SessionKey) -> tuple[str, ...]:
        """What must not be seen in what is recorded of a session, as far as it can be known now."""
        try:
            return self.known(key)[1]
        except StoreUnavailable:
            return self._defaults.secret_values

    def known(self, key: SessionKey) -> tuple[Session | None, tuple[str, ...]]:
        """A session, None where there is none, with its `secret_values`. Raises StoreUnavailable."""
        try:
            session, defaults = self.of(key)
        except StoreUnavailable:  # its key is not here
            return self._records.find(key), self._defaults.secret_values
        return session, defaults.secret_values

    def base(self, key: SessionKey) -> str:
        """The folder that a relative path of a call starts from."""
        return self.named_base(key) or self._defaults.cwd

    def named_base(self, key: SessionKey) -> str | None:
        """The folder of a session, as somebody has set it; None where nobody has."""
        try:
            session = self._records.find(key)
        except StoreUnavailable:
            session = None
        return session.workspace.cwd if session is not None else None

    def sealed(self, env: Mapping[str, str | None]) -> dict[str, str | None]:
        """Values as they may be kept; None stays. Raises StoreUnavailable."""
        return {name: None if value is None else self.sealer.seal(value) for name, value in env.items()}

    def folder(self, cwd: str, session: Session) -> str:
        """An existing folder, absolute, as a call in a session names it. Raises InvalidArgument."""
        base = session.workspace.cwd or self._defaults.cwd
        path = absolute(cwd, base)
        if not os.path.isdir(path):
            raise InvalidArgument(f"cwd {cwd!r} is not a directory", "give the path of an existing directory")
        return path

    def program(self, shell: str, cwd: str | None, env: Mapping[str, str | None], session: Session) -> str:
        """A program that can be run in a folder of a session, with `env` on top. Raises InvalidArgument."""
        try:
            environment = self.of(session.key)[1].environment
        except StoreUnavailable:  # its key is not here
            environment = self._defaults.environment
        given = {name: value for name, value in env.items() if value is not None}
        if not can_run(shell, cwd or self._defaults.cwd, {**environment, **given}):
            raise InvalidArgument(
                f"shell {shell!r} is not there, or not executable",
                'give the path of a shell, like "/bin/bash"',
            )
        return shell
