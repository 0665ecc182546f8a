"""What is different between two looks at a project."""

from __future__ import annotations

from collections.abc import Iterable

from mcp_tasks.projects.project import Project, Vcs

__all__ = ["changes"]

_MOST = 40


def changes(before: Project, now: Project) -> list[str]:
    """One sentence for each thing that is not as it was."""
    found: list[str] = []
    if before.root != now.root:
        found.append(f"root: {before.root} -> {now.root}")
    found += _of_vcs(before.vcs, now.vcs)
    for kind, old, new in (("build", before.build, now.build), ("test", before.test, now.test)):
        found += _of_names(
            f"{kind} command",
            (f"{each.command} (from {each.source})" for each in old),
            (f"{each.command} (from {each.source})" for each in new),
        )
    found += _of_names("manifest", before.manifests, now.manifests)
    counted = {each.name: each.files for each in before.languages}
    recounted = {each.name: each.files for each in now.languages}
    for name in sorted({*counted, *recounted}):
        old_files, new_files = counted.get(name, 0), recounted.get(name, 0)
        if old_files != new_files:
            found.append(f"{name} files: {old_files} -> {new_files}")
    found += _of_names("problem", before.problems, now.problems)
    if len(found) > _MOST:
        return [*found[:_MOST], f"and {len(found) - _MOST} more"]
    return found


def _of_vcs(before: Vcs | None, now: Vcs | None) -> list[str]:
    old, new = before or Vcs("none"), now or Vcs("none")
    pairs = (
        ("version control", old.kind, new.kind),
        ("branch", old.branch, new.branch),
        ("commit", old.commit, new.commit),
        ("remote", old.remote, new.remote),
    )
    return [f"{what}: {was or 'none'} -> {is_now or 'none'}" for what, was, is_now in pairs if was != is_now]


def _of_names(what: str, before: Iterable[str], now: Iterable[str]) -> list[str]:
    old, new = dict.fromkeys(before), dict.fromkeys(now)
    added = [f"{what} added: {name}" for name in new if name not in old]
    return added + [f"{what} gone: {name}" for name in old if name not in new]
