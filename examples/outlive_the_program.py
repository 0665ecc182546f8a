"""Start a command in one program, leave, and come back for its result in another.

Run it twice: the first run starts the command and leaves at once, the second waits for its end.
"""

import anyio

from mcp_tasks import open_tasks


async def main() -> None:
    """Start the command, or wait for the one that was started before."""
    async with open_tasks(session="example") as tasks:
        # The key makes it the same task however often this line runs.
        task = await tasks.run(
            "for i in 1 2 3 4 5; do echo step $i; sleep 1; done", key="five-steps", wait_ms=0
        )
        if not task.get("reused"):
            print(f"started {task['task_id']}; run me again")
            return
        done = await tasks.wait(task["task_id"])
        print(f"{done['state']}, exit code {done.get('exit_code')}")
        print(b"".join(tasks.output(task["task_id"])).decode(), end="")
        await tasks.clear(task["task_id"])


anyio.run(main)
