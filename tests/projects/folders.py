"""Making the folders that projects are."""

from __future__ import annotations

from pathlib import Path

__all__ = ["COMMIT", "OTHER", "git", "put"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"


def put(root: Path, **files: str) -> Path:
    """Write files; a name's `__` is a slash and its `_dot_` a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def git(root: Path, *, branch: str = "main", commit: str = COMMIT, config: str = "") -> Path:
    """Make the files of a git repository, as git(1) would."""
    repository = root / ".git"
    (repository / "refs/heads").mkdir(parents=True, exist_ok=True)
    (repository / "objects").mkdir(exist_ok=True)
    (repository / "HEAD").write_text(f"ref: refs/heads/{branch}\n")
    ref = repository / "refs/heads" / branch
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(f"{commit}\n")
    (repository / "config").write_text(config)
    return root
