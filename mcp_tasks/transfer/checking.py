"""Looking at everything in a place: records, journals, runs, archives, and what was set aside."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from mcp_tasks.errors import StoreUnavailable
from mcp_tasks.models import Finished, Lost, SessionKey, Task
from mcp_tasks.output.captured import STREAMS, RunOutput
from mcp_tasks.stores.disk.quarantine import QUARANTINE, set_aside_in
from mcp_tasks.transfer.files import open_to_read, run_files
from mcp_tasks.transfer.places import Place

__all__ = ["EXIT", "Checked", "exit_record", "verify"]

EXIT = "exit.json"
_MOST_EXIT = 16_384


class Checked(Protocol):
    """What can look at itself."""

    def check(self) -> Iterator[str]:
        """One sentence for each thing that is wrong."""
        ...


def verify(place: Place, archives: Checked) -> Iterator[str]:
    """Look at every record, journal, run and archive of a place; one sentence for each thing that is wrong.

    What is broken is set aside, as any reading would; nothing else is changed. What was set aside is
    named for as long as it lies there: it is missing from the place.

    Raises:
        StoreUnavailable: The disk refuses, so that nothing can be said.
    """
    told: set[str] = set()
    for sentence in _found(place, archives):
        # What is set aside meanwhile is told of below, in the same words each time.
        if sentence not in told and f"{QUARANTINE}/" not in sentence:
            told.add(sentence)
            yield sentence
    for one in set_aside_in(place.root):
        yield one.sentence()


def _found(place: Place, archives: Checked) -> Iterator[str]:
    yield from place.store.verify()
    for session in place.store.sessions():
        for task in place.store.tasks(session.key):
            yield from _run_problems(place, task)
        yield from _journal_problems(place, session.key)
    yield from place.journal.verify()
    yield from place.store.problems()
    yield from place.journal.problems()
    yield from archives.check()


def _run_problems(place: Place, task: Task) -> Iterator[str]:
    state = task.state
    if not isinstance(state, Finished):
        return
    for run in range(1, state.run):
        yield from _problems_of(place, task, run, must_tell=False)
    yield from _problems_of(
        place,
        task,
        state.run,
        must_tell=state.started_at is not None and not isinstance(state.outcome, Lost),
    )


def _problems_of(place: Place, task: Task, run: int, *, must_tell: bool) -> Iterator[str]:
    """What is wrong with one run; one that need not tell how it ended may have no exit record."""
    folder = place.store.run_folder(task.key, run)
    what = f"run {run} of task {task.key.task_id}"
    try:
        names = run_files(os.fspath(folder))
        record = exit_record(folder) if EXIT in names else None
        if record is not None:
            yield from (f"{what}: {problem}" for problem in _missing_output(folder, record, task))
        elif must_tell:
            yield f"{what}: its exit record is {'damaged' if EXIT in names else 'missing'}"
        for name in names:
            os.close(open_to_read(f"{folder}/{name}"))
    except (OSError, ValueError) as error:
        yield f"{what}: it cannot be read ({error.strerror if isinstance(error, OSError) else error})"


def _missing_output(folder: Path, record: dict[str, Any], task: Task) -> Iterator[str]:
    """There may be more than was captured at the end, of what ran on in the background, and never less."""
    if record["outcome"] == "output_limit" and task.spec.on_output_limit == "keep_tail":
        return  # the disk was full: of the last piece more may have been counted than kept
    output = RunOutput(folder)
    for stream in STREAMS:
        captured, there = record.get(f"{stream}_bytes"), output.size(stream)
        if isinstance(captured, int) and there < captured:
            yield f"its {stream} was cut short: {there} of {captured} bytes are there"
    if task.spec.on_output_limit == "keep_tail" and any(output.holes(stream) for stream in STREAMS):
        # Nothing is left out before the head, of both streams together, is full.
        there = sum(_size(folder / stream) for stream in STREAMS)
        if there < (head := task.spec.max_output_bytes // 2):
            yield f"the head of its output was cut short: {there} of {head} bytes are there"


def _size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0


def exit_record(folder: Path) -> dict[str, Any] | None:
    """What a run's supervisor wrote of its end; None where it is damaged. Raises OSError, ValueError."""
    descriptor = open_to_read(f"{folder}/{EXIT}")
    try:
        record = json.loads(os.read(descriptor, _MOST_EXIT))
        return record if isinstance(record, dict) and "outcome" in record else None
    except ValueError:
        return None
    finally:
        os.close(descriptor)


def _journal_problems(place: Place, key: SessionKey) -> Iterator[str]:
    try:
        for _ in place.journal.everything(key):
            pass
    except StoreUnavailable as error:
        yield f"the journal of session {key.session}: {error.message}"
