"""One of several processes that write to the same store at once.

`python -m tests.stores.hammer ADAPTER FOLDER TASK_ID THREADS ROUNDS` says `ready`, waits for a line on
stdin, and prints what it did as JSON; so does `claim ADAPTER FOLDER THREADS`, which takes pending tasks: one,
and when it is told to go on (`ready` again), all that are left.
`hold ADAPTER FOLDER admission|session` holds a lock for ever.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from mcp_tasks.errors import KeyConflict, RevisionConflict
from mcp_tasks.models import TaskKey
from mcp_tasks.ports import Store
from mcp_tasks.stores.json.store import JsonFileStore
from mcp_tasks.stores.sqlite.store import SqliteStore
from tests.stores.adapters import LASTING
from tests.stores.records import OWNER, SESSION, finished, pending, relabelled, started


def hammer(adapter: str, root: Path, task_id: str, threads: int, rounds: int) -> dict[str, object]:
    store = LASTING[adapter](root)
    counter = TaskKey(OWNER, "default", task_id)
    created: list[str] = []
    won: list[str] = []

    def work(thread: int) -> int:
        done = 0
        while done < rounds:
            seen = store.load(counter)
            try:
                store.replace(relabelled(seen, str(int(seen.spec.label or "0") + 1)))
            except RevisionConflict:
                continue
            done += 1
            task = pending(f"Session-{done % 3}", key=f"key-{done}")
            try:
                store.create(task)
            except KeyConflict:
                continue
            won.append(f"{task.key.session} {task.spec.key}")
            if done % 2:
                store.delete(task.key)
                won.pop(won.index(f"{task.key.session} {task.spec.key}"))
            else:
                store.replace(finished(task))
                created.append(task.key.task_id)
            list(store.tasks(SESSION))
            store.unfinished()
        return done

    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(work, range(threads)))
    return {"counted": total, "created": created, "won": won, "problems": store.problems()}


def claim(adapter: str, root: Path, threads: int) -> dict[str, object]:
    """Take pending tasks until there are none, and end those that were taken."""
    store = LASTING[adapter](root)

    def take(thread: int, most: int | None = None) -> list[str]:
        taken: list[str] = []
        while (waiting := store.pending()) and len(taken) != most:
            with suppress(RevisionConflict):
                seen = store.load(waiting[(thread * 7) % len(waiting)])
                if seen.state_name != "pending":
                    continue
                mine = store.replace(started(seen))
                taken.append(mine.key.task_id)
                store.replace(finished(mine))
        return taken

    # All want the same one first, so that there is a race however the processors are shared out.
    taken = take(0, most=1)
    wait_for_the_others()
    with ThreadPoolExecutor(threads) as pool:
        taken += [task_id for ids in pool.map(take, range(threads)) for task_id in ids]
    return {"taken": taken, "problems": store.problems()}


def hold(adapter: str, root: Path, which: str) -> None:
    store = LASTING[adapter](root)
    with store.admission() if which == "admission" else writing(store):
        sys.stdout.write("held\n")
        sys.stdout.flush()
        sys.stdin.read()


def writing(store: Store) -> AbstractContextManager[object]:
    """What every writer of the session holds."""
    match store:
        case JsonFileStore():
            return store._sessions.lock(SESSION)
        case SqliteStore():
            return store._database.transaction()
        case _:
            raise TypeError(store)


def wait_for_the_others() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        hold(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    elif sys.argv[1] == "claim":
        wait_for_the_others()
        sys.stdout.write(json.dumps(claim(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))))
    else:
        wait_for_the_others()
        sys.stdout.write(
            json.dumps(
                hammer(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
            )
        )
