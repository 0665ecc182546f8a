"""One of several processes that write to the same store at once.

`python -m tests.stores.hammer FOLDER TASK_ID THREADS ROUNDS` waits for a line on stdin, prints what
it did as JSON. `python -m tests.stores.hammer hold FOLDER admission|session` holds a lock for ever.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mcp_tasks.errors import KeyConflict, RevisionConflict
from mcp_tasks.models import TaskKey
from mcp_tasks.stores.json_files import JsonFileStore
from tests.stores.records import OWNER, SESSION, finished, pending, relabelled


def hammer(root: Path, task_id: str, threads: int, rounds: int) -> dict[str, object]:
    store = JsonFileStore(root)
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


def hold(root: Path, which: str) -> None:
    store = JsonFileStore(root)
    with store.admission() if which == "admission" else store._sessions.lock(SESSION):
        sys.stdout.write("held\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        hold(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.stdin.readline()
        sys.stdout.write(
            json.dumps(hammer(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
        )
