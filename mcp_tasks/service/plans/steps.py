"""The steps of a plan: which waits for which, by name, number or task id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcp_tasks.errors import InvalidArgument
from mcp_tasks.models import TASK_ID, as_task_id
from mcp_tasks.requests import PlanStep, RunCommand, RunPlan

__all__ = ["Wanted", "command_of", "wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one step waits for.

    Attributes:
        steps: Other steps of the plan, as positions from 0.
        tasks: Ids of tasks that were there before.
    """

    steps: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()


def wanted(request: RunPlan) -> list[Wanted]:
    """What each step waits for: what it names in `after`, else, in a sequence, the step before it.

    Raises:
        InvalidArgument: Two steps have one name, a name is nobody's, or steps wait for each other.
    """
    names: dict[str, int] = {}
    for position, step in enumerate(request.commands):
        if step.name is None:
            continue
        if (other := names.setdefault(step.name, position)) != position:
            raise InvalidArgument(
                f"commands[{position + 1}] has the name {step.name!r} of commands[{other + 1}]",
                "give each step a name of its own, or none",
            )
    found: list[Wanted] = []
    for position, step in enumerate(request.commands):
        if step.after is not None:
            found.append(_named(position, step.after, names, len(request.commands)))
        elif request.order == "sequence" and position:
            found.append(Wanted((position - 1,)))
        else:
            found.append(Wanted())
    if circle := _circle(found):
        path = " → ".join(_called(request.commands, position) for position in circle)
        raise InvalidArgument(f"steps wait for each other: {path}", "leave one of these out of `after`")
    return found


def command_of(step: PlanStep) -> RunCommand:
    """The request that starts one step, but for what makes it part of a plan."""
    given = step.model_dump(exclude={"name", "after", "session"}, exclude_unset=True)
    return RunCommand(**given, label=step.name)


def _named(position: int, after: Sequence[str], names: dict[str, int], count: int) -> Wanted:
    steps: dict[int, None] = {}
    tasks: dict[str, None] = {}
    for given in after:
        name = given.strip()
        if name in names:
            steps[names[name]] = None
        elif name.isascii() and name.isdigit() and len(name) < 5 and 1 <= int(name) <= count:
            steps[int(name) - 1] = None
        elif TASK_ID.fullmatch(task_id := as_task_id(name)):
            tasks[task_id] = None
        else:
            raise InvalidArgument(
                f"commands[{position + 1}] waits for {given!r}, which is no step of the plan",
                f"name a step, or give its number from 1 to {count}, or the id of a task of the session",
            )
    return Wanted(tuple(steps), tuple(tasks))


def _circle(found: Sequence[Wanted]) -> list[int]:
    """Steps that wait for each other, the first of them again at the end; empty where there are none."""
    over: set[int] = set()
    for first in range(len(found)):
        # The steps on the way here, each with those that are still to be followed from it.
        way: list[tuple[int, list[int]]] = [(first, list(found[first].steps))] if first not in over else []
        on_way = {first}
        while way:
            position, left = way[-1]
            if not left:
                way.pop()
                on_way.discard(position)
                over.add(position)
                continue
            following = left.pop()
            if following in on_way:
                steps = [step for step, _ in way]
                return [*steps[steps.index(following) :], following]
            if following not in over:
                way.append((following, list(found[following].steps)))
                on_way.add(following)
    return []


def _called(steps: Sequence[PlanStep], position: int) -> str:
    return steps[position].name or str(position + 1)
