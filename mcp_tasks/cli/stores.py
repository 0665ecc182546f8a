"""`store`: the state directory as a whole: moved, checked, backed up, brought back, counted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from mcp_tasks.cli.options import Dir, Json, Store
from mcp_tasks.cli.places import backups_folder, now_ms, open_at, opened, refuse_share, settings_of
from mcp_tasks.cli.printing import note, print_json, print_table, print_text, size, waiting
from mcp_tasks.errors import InvalidArgument, NotSupported

if TYPE_CHECKING:
    from mcp_tasks.transfer import Backup

__all__ = ["group", "register"]

group = typer.Typer(
    name="store",
    help="The store: migrate, verify, back up, restore, count.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Backups: TypeAlias = Annotated[
    Path | None,
    typer.Option("--to", "--in", metavar="D", help="Folder of backups; else beside the state directory."),
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    app.add_typer(group)


@group.command()
def migrate(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="State directory to copy from.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="State directory to copy into.")],
    from_kind: Annotated[
        str | None, typer.Option("--from", metavar="KIND", help="Store of SRC; else the one it remembers.")
    ] = None,
    to_kind: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="KIND", help="Store of DST; else the one it remembers, else the other one."
        ),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Take what is not over as cancelled or lost, instead of refusing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy everything from one store into another, and compare.

    SRC is only read. A copy that was interrupted goes on when it is started again. Exits with 1 where
    the copy is not like its original. Hooks that are still to be told stay with SRC: in both, they would be
    told twice.
    """
    from mcp_tasks.app import open_outbox
    from mcp_tasks.settings import Settings
    from mcp_tasks.transfer import adapter_of, migrate, refuse_nested

    refuse_share(Settings(dir=source))
    if "memory" in (from_kind, to_kind):
        raise NotSupported("the memory store lives in its server alone", "migrate between json and sqlite")
    known = adapter_of(source)
    if known is None:
        raise InvalidArgument(f"there is no store in {source}", "name the state directory to copy from")
    refuse_nested(source, target)
    kind = from_kind or known
    other = to_kind or adapter_of(target) or ("json" if kind == "sqlite" else "sqlite")
    with opened(Settings(dir=source, store=kind)) as origin:
        place = open_at(Settings(dir=target, store=other).dir, other)
        try:
            with waiting(f"copying {source} to {target}"):
                done = migrate(origin.place, place, at=now_ms(), seen=origin.seen, live=live)
        finally:
            place.close()
    untold = len(open_outbox(Settings(dir=source)).listing())
    answer = {
        "source": str(source),
        "target": str(target),
        "from": kind,
        "to": other,
        "resumed": done.resumed,
        **asdict(done.totals),
        "differences": list(done.differences),
        "untold": untold,
    }
    if as_json:
        print_json(answer)
    else:
        print_text(f"{_amounts(asdict(done.totals))}: {source} ({kind}) to {target} ({other})")
        for difference in done.differences:
            print_text(difference)
        if not done.differences:
            note(f"checked; to use it: --dir {target} --store {other}")
    if untold:
        note(
            f"tasks whose hooks are still to be told: {untold}; whoever serves {source} tells them, so keep"
            f" it until nothing but a lock is in {source / 'hooks'}"
        )
    raise typer.Exit(1 if done.differences else 0)


@group.command()
def verify(
    repair: Annotated[
        str | None,
        typer.Option(
            "--repair", metavar="BACKUP", help="Bring back from it what is broken; `newest` is one."
        ),
    ] = None,
    backups: Backups = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
) -> None:
    """Look at every record, journal, run and archive; exits with 1 where something is wrong.

    What cannot be read is set aside in quarantine/, as any reading would do, and named for as long as it
    lies there.
    """
    from mcp_tasks import transfer

    settings = settings_of(directory, store)
    done = transfer.Repaired([], [])
    name = ""
    with _only_reported(), opened(settings) as here:
        with waiting("looking at everything"):
            problems = list(transfer.verify(here.place, here.archives))
        if not as_json:
            for problem in problems:
                print_text(problem)
        if repair is not None:
            backup = transfer.find_backup(
                backups_folder(settings, backups), None if repair == "newest" else repair, settings.dir
            )
            with waiting(f"bringing back from {backup.name}"):
                done = transfer.repair(here.place, backup, open_at, at=now_ms())
            name = backup.name
            here.audit.note(
                "repaired",
                owner=settings.owner,
                by=settings.owner,
                detail={"from": name, "back": len(done.back)},
            )
    left = problems
    if repair is not None:
        made_up_for = {one.sentence() for one in done.made_up_for}
        with _only_reported(), opened(settings) as here:
            left = [one for one in transfer.verify(here.place, here.archives) if one not in made_up_for]
    if as_json:
        print_json({"problems": problems, "repaired": done.back, "left": left})
    else:
        for one in done.back:
            note(f"brought back: {one}")
        for one in left if repair is not None else []:
            note(f"not repaired, nothing in the backup {name} mends it: {one}")
        if done.made_up_for:
            note("what was broken stays in quarantine/, and is named there until you delete it")
        if not problems:
            note("all is well")
    raise typer.Exit(1 if left else 0)


@contextmanager
def _only_reported() -> Iterator[None]:
    """What a store warns of when it meets it is in the report already."""
    log = logging.getLogger("mcp_tasks.stores")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@group.command()
def backup(
    to: Backups = None,
    keep: Annotated[
        int | None, typer.Option(metavar="N", help="How many backups stay (MCP_TASKS_BACKUPS).", min=1)
    ] = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
) -> None:
    """Make a checked copy of everything, while servers go on; remove the oldest copies.

    What is pending is cancelled in the copy, what runs is lost there: nothing runs twice. The key of
    sealed texts is not in it: keep a copy of the key file elsewhere.
    """
    from mcp_tasks.transfer import make_backup

    settings = settings_of(directory, store)
    with opened(settings) as here, waiting("copying"):
        made = make_backup(
            here.place,
            backups_folder(settings, to),
            open_at,
            at=now_ms(),
            seen=here.seen,
            keep=keep or settings.backups,
        )
        here.audit.note("backed_up", owner=settings.owner, by=settings.owner, detail={"backup": made.name})
    if as_json:
        print_json(_backup_view(made))
    else:
        print(made.path)
        note(_amounts(_backup_view(made)))


@group.command()
def backups(
    folder: Backups = None,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
) -> None:
    """List the backups, newest first."""
    from mcp_tasks.transfer import all_backups

    settings = settings_of(directory, store)
    views = [_backup_view(one) for one in all_backups(backups_folder(settings, folder))]
    if as_json:
        print_json({"backups": views})
        return
    rows = [
        [
            view["name"],
            str(view.get("sessions", "")),
            str(view.get("tasks", "")),
            size(view["size"]) if "size" in view else "",
            view.get("problem") or view["source"],
        ]
        for view in views
    ]
    print_table(["BACKUP", "SESSIONS", "TASKS", "SIZE", "OF"], rows)


@group.command()
def restore(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[BACKUP]", help="Name or path; else the newest.", show_default=False),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Set a store that is there aside; it is not removed.")
    ] = False,
    folder: Backups = None,
    as_json: Json = False,
    directory: Dir = None,
) -> None:
    """Make a state directory of a backup, after comparing it with its manifest to the last byte."""
    from mcp_tasks.settings import Settings
    from mcp_tasks.transfer import find_backup, restore_backup

    settings = refuse_share(Settings(dir=directory))
    found = find_backup(backups_folder(settings, folder), name, settings.dir)
    with waiting(f"restoring {found.name}"):
        aside = restore_backup(found, settings.dir, replace=replace, at=now_ms())
    view = _backup_view(found) | {"dir": str(settings.dir)} | ({"aside": str(aside)} if aside else {})
    if as_json:
        print_json(view)
        return
    print(settings.dir)
    note(f"{_amounts(view)}, store {view['store']}" + (f"; the old one is {aside}" if aside else ""))


@group.command()
def stats(as_json: Json = False, directory: Dir = None, store: Store = None) -> None:
    """Count sessions and tasks by state, messages and bytes, and tell of cleanups and backups."""
    from mcp_tasks.clock import rfc3339
    from mcp_tasks.retention import read_record
    from mcp_tasks.service.sessions.views import state_of
    from mcp_tasks.transfer import all_backups, figures

    settings = settings_of(directory, store)
    now = now_ms()
    with opened(settings, existing=False) as here:
        answer = figures(
            here.place,
            here.archives,
            lambda session, active_at, busy: state_of(session, active_at, now, busy=busy),
        )
    if (record := read_record(settings.dir)) is not None:
        answer["cleanup"] = {**record.view(), "last_at": rfc3339(record.last_at)}
    made = all_backups(backups_folder(settings, None))
    answer["backups"] = {"all": len(made), **({"newest": made[0].name} if made else {})}
    if as_json:
        print_json(answer)
        return
    rows = []
    for name, value in answer.items():
        if isinstance(value, dict):
            parts = [
                f"{key} {_shown(name, count)}" for key, count in value.items() if not isinstance(count, dict)
            ]
            rows.append([name, ", ".join(parts)])
        elif value is not None:
            rows.append([name, str(value)])
    print_table(["WHAT", "HOW MUCH"], rows)


@group.command()
def cleanup(as_json: Json = False, directory: Dir = None, store: Store = None) -> None:
    """Do the daily cleanup now: archive idle sessions, fold idle journals, remove old archives.

    By the ages of the settings archive_days, journal_days and retention_days.
    """
    from mcp_tasks.retention import Cleanup, Rules

    settings = settings_of(directory, store)
    rules = Rules(
        settings.archive_days, settings.journal_days, settings.retention_days, settings.cleanup_hour
    )
    with opened(settings) as here, waiting("cleaning up"):
        here.settle()
        done = Cleanup(
            settings.dir,
            here.place.store,
            here.place.journal,
            archives=here.archives,
            audit=here.audit,
            rules=rules,
        ).run_now()
    if as_json:
        print_json(asdict(done))
        return
    print_text(
        f"{done.archived} sessions archived, {done.folded} journals folded, "
        f"{done.removed} archives removed ({size(done.freed_bytes)}), {done.failed} failed"
    )


@group.command()
def audit(
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1)] = 50,
    as_json: Json = False,
    directory: Dir = None,
    store: Store = None,
) -> None:
    """Show what was done to whose sessions, newest first."""
    from mcp_tasks.stores.audit_file import AuditFile

    entries = list(AuditFile(settings_of(directory, store).dir).read(limit=limit))
    if as_json:
        print_json({"entries": entries})
        return
    rows = [
        [
            str(entry.get("at", "")),
            str(entry.get("action", "")),
            str(entry.get("owner", "")),
            str(entry.get("session") or ""),
            str(entry.get("by", "")),
            " ".join(f"{key}={value}" for key, value in (entry.get("detail") or {}).items()),
        ]
        for entry in entries
    ]
    print_table(["AT", "WHAT", "OWNER", "SESSION", "BY", "DETAIL"], rows)


@group.command("rotate-key")
def rotate_key(as_json: Json = False, directory: Dir = None, store: Store = None) -> None:
    """Make a new key and seal everything with it; old keys stay, for archives and backups."""
    from mcp_tasks.app import open_outbox
    from mcp_tasks.sealing.rotation import rotate

    settings = settings_of(directory, store)
    with opened(settings) as here:
        journal: Any = here.place.journal
        with waiting("sealing anew"):
            done = rotate(here.sealer, here.place.store, journal, here.executor, open_outbox(settings))
        here.audit.note("key_rotated", owner=settings.owner, by=settings.owner, detail={"key": done.key_id})
    if as_json:
        print_json(asdict(done))
    else:
        print_text(
            f"key {done.key_id}: {done.sessions} sessions, {done.messages} messages and {done.launches} "
            f"launches sealed anew; {done.unreadable} could not be read"
        )
    raise typer.Exit(1 if done.unreadable else 0)


def _backup_view(one: Backup) -> dict[str, Any]:
    from mcp_tasks.clock import rfc3339

    view: dict[str, Any] = {"name": one.name, "path": str(one.path)}
    if one.manifest is None:
        return view | {"problem": one.problem}
    return view | {
        "made_at": rfc3339(one.manifest.made_at),
        "store": one.manifest.adapter,
        "source": one.manifest.source,
        **asdict(one.manifest.totals),
        "size": sum(length for length, _ in one.manifest.files.values()),
    }


def _amounts(counts: dict[str, Any]) -> str:
    named = (f"{counts[name]} {name}" for name in ("sessions", "tasks", "plans", "messages", "files"))
    return f"{', '.join(named)} ({size(counts['bytes'])} of output copied)"


def _shown(name: str, value: object) -> str:
    return size(value) if name == "bytes" and isinstance(value, int) else str(value)
