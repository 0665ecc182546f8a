"""Several commands at once from plain Python, without a word of async."""

from mcp_tasks import open_blocking_tasks

with open_blocking_tasks(store="memory") as tasks:
    started = [tasks.run(["sh", "-c", f"sleep 0.{n}; echo {n}"], wait_ms=0) for n in (3, 1, 2)]
    answer = tasks.wait_all(*(task["task_id"] for task in started))
    for task in answer["done"]:
        print(task["state"], b"".join(tasks.output(task["task_id"])).decode().strip())
