"""Which version of what is installed."""

from __future__ import annotations

__all__ = ["installed"]


def installed(name: str) -> str:
    """A package and its version; a source tree that was never installed has none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} (not installed)"
