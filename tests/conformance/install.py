"""Install the conformance suite, pinned, beside the other clients: `python -m tests.conformance.install`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.clients import install as clients

__all__ = ["ALPHA", "STABLE", "Suite", "find", "install"]

STABLE: Final = "0.1.16"
ALPHA: Final = "0.2.0-alpha.12"

_PACKAGE: Final = "@modelcontextprotocol/conformance"
_NAMES: Final = {"conformance-stable": STABLE, "conformance-alpha": ALPHA}


@dataclass(frozen=True)
class Suite:
    """Where it is.

    Attributes:
        node: A Node that is new enough.
        stable: The script of the stable version, for `node`.
        alpha: The same of the version that knows 2026-07-28.
    """

    node: str
    stable: Path
    alpha: Path


def find() -> Suite | None:
    """The suite, or None where some of it is missing or of another version."""
    others, modules = clients.find(clients.folder()), _folder() / "node_modules"
    packages = [modules / name / "package.json" for name in _NAMES]
    if others is None or not all(package.is_file() for package in packages):
        return None
    if [json.loads(package.read_text())["version"] for package in packages] != [STABLE, ALPHA]:
        return None
    stable, alpha = (modules / name / "dist" / "index.js" for name in _NAMES)
    return Suite(others.node, stable, alpha)


def install() -> Suite:
    """Install what is missing. Raises RuntimeError where that cannot be done."""
    found = find()
    if found is None:
        clients.install(clients.folder())
        # Two versions of one package, each under a name of its own.
        clients._npm(_folder(), {name: f"npm:{_PACKAGE}@{version}" for name, version in _NAMES.items()})
        found = find()
    if found is None:
        raise RuntimeError(
            f"npm has installed the conformance suite, and some of it is missing in {_folder()}"
        )
    return found


def _folder() -> Path:
    return clients.folder() / "conformance"


if __name__ == "__main__":
    install()
