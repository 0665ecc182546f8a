"""Calls with ids and names of other sessions and owners: answered as if nothing of the kind existed."""

from __future__ import annotations

import functools
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_tasks.clock import new_task_id
from mcp_tasks.errors import TasksError
from mcp_tasks.requests import (
    AddMessage,
    CancelTask,
    ClearTask,
    EndSession,
    ExportSession,
    GetResult,
    ListSessions,
    ListTasks,
    PlanProgress,
    PlanStep,
    PollTask,
    ProjectContext,
    ReadJournal,
    Request,
    RunCommand,
    RunPlan,
    SearchJournal,
    SearchOutput,
    SendInput,
    SessionInfo,
    WaitTasks,
)
from mcp_tasks.service import Service
from tests.campaigns.rig import short_or_full
from tests.service.agent import Agent, open_agent

pytestmark = [pytest.mark.anyio, pytest.mark.campaign]

_MARK = "unmistakable-text-of-somebody-else"
_CALLS = short_or_full(400, 40_000)
_TIMED = short_or_full(150, 2_000)


async def _victim(agent: Agent) -> dict[str, str]:
    """Somebody with one of everything; what it is called."""
    running = await agent.start(f"echo {_MARK}; sleep 600", label=_MARK, interactive=True)
    done = (await agent.run(f"echo {_MARK}", key="secret-key"))["task_id"]
    plan = await agent.service.run_plan(
        agent.caller, RunPlan(commands=(PlanStep(command=f"echo {_MARK}"),), name=_MARK, wait_ms=20_000)
    )
    message = await agent.service.add_message(agent.caller, AddMessage(text=_MARK))
    view = await agent.update(title=_MARK, share="write", preferences={"mark": _MARK})
    return {
        "running": running,
        "done": done,
        "plan": plan["plan_id"],
        "message": message["message"]["message_id"],
        "token": view["share"]["token"],
    }


def _requests(task_id: str, plan_id: str, message_id: str) -> list[Request]:
    """Every way to ask for a task, a plan or a message by its id."""
    return [
        PollTask(task_id=task_id),
        PollTask(task_id=task_id.upper()),
        PollTask(task_id=f" {task_id} "),
        GetResult(task_id=task_id),
        GetResult(task_id=task_id, tail_lines=5),
        CancelTask(task_id=task_id),
        CancelTask(task_ids=(task_id,)),
        ClearTask(task_id=task_id),
        ClearTask(task_id=task_id, cancel=True),
        SendInput(task_id=task_id, text="x"),
        SendInput(task_id=task_id, signal="SIGKILL"),
        WaitTasks(task_ids=(task_id,), wait_ms=0),
        SearchOutput(task_id=task_id, pattern="."),
        PlanProgress(plan_id=plan_id),
        AddMessage(text="x", parent=message_id),
        AddMessage(text="x", replaces=message_id),
        AddMessage(text="x", task_id=task_id),
        ReadJournal(thread=message_id),
        ReadJournal(branch=message_id),
        ReadJournal(versions=message_id),
        RunCommand(command="true", after=(task_id,)),
        RunPlan(commands=(PlanStep(command="true", after=(task_id,)),)),
    ]


def _sweeping() -> list[Request]:
    """Everything that asks for no id, and so must show nothing of somebody else."""
    return [
        ListTasks(limit=1_000),
        ListTasks(label=_MARK),
        WaitTasks(label=_MARK, wait_ms=0),
        SearchOutput(pattern="."),
        ClearTask(all_finished=True),
        ClearTask(older_than_days=0),
        SessionInfo(),
        ListSessions(limit=1_000),
        PlanProgress(),
        ReadJournal(folded=True),
        ReadJournal(role="user"),
        SearchJournal(text=_MARK),
        SearchJournal(text="unmistakable"),
        ExportSession(format="json"),
        ProjectContext(),
        EndSession(wait_ms=0),
    ]


async def _outcome(agent: Agent, request: Request) -> str:
    """What a call came to, in words: the view or the error."""
    call: Callable[[Any, Any], Awaitable[Any]] = getattr(agent.service, request.tool)
    try:
        return str(await call(agent.caller, request))
    except TasksError as error:
        return str(error)


def _ids(known: dict[str, str], task: str) -> tuple[str, str, str]:
    return known[task], known["plan"], known["message"]


def _unknown() -> tuple[str, str, str]:
    now = int(time.time() * 1000)
    return new_task_id(now), new_task_id(now), new_task_id(now)


def _without(text: str, ids: tuple[str, str, str]) -> str:
    """A text with the ids that were asked for taken out, so that what is left can be compared."""
    for name in ids:
        text = text.replace(name.upper(), "ID").replace(name, "ID")
    return text


@pytest.fixture(params=["json", "sqlite"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_ids_of_others_are_answered_in_the_words_for_ids_that_do_not_exist(
    tmp_path: Path, store: str
) -> None:
    chance = random.Random(7)
    async with open_agent(tmp_path / "state", store=store) as agent:
        victim = agent.of("work", owner="victim")
        known = await _victim(victim)
        neighbour = agent.of("work", owner="neighbour")
        strangers = [
            neighbour,  # a session of the same name, of another owner
            agent.of("default", owner="neighbour", named=False),  # who names no session at all
            agent.of("elsewhere", owner="victim"),  # another session of the same owner, named
            agent.of("work-2", owner="victim"),
        ]
        for stranger in strangers:
            await stranger.update(title="mine")
        for _ in range(_CALLS):
            stranger = chance.choice(strangers)
            theirs, nobodys = _ids(known, chance.choice(["running", "done"])), _unknown()
            number = chance.randrange(len(_requests(*theirs)))
            told = await _outcome(stranger, _requests(*theirs)[number])
            expected = await _outcome(stranger, _requests(*nobodys)[number])
            assert _without(told, theirs) == _without(expected, nobodys), _requests(*theirs)[number]
            assert _MARK not in told
        for stranger in strangers:
            for request in _sweeping():
                told = await _outcome(stranger, request)
                if not isinstance(request, ListSessions):
                    assert _MARK not in told.replace(f"'{_MARK}'", ""), request
                elif stranger.caller.owner != "victim":
                    assert _MARK not in told
                for name in ("running", "done", "plan", "message"):
                    assert known[name] not in told, request
        # And nothing has been done to what they asked for.
        assert (await victim.poll(known["running"]))["state"] == "running"
        assert (await victim.result(known["done"]))["stdout"] == f"{_MARK}\n"
        assert (await victim.info())["state"] == "open"
        await victim.end_everything()


async def test_tokens_that_open_nothing_are_answered_alike_whatever_is_wrong_with_them(
    tmp_path: Path,
) -> None:
    async with open_agent(tmp_path / "state") as agent:
        victim = agent.of("work", owner="victim")
        token = (await _victim(victim))["token"]
        named, _, secret = token.rpartition(".")
        wrong = [f"{named}.{'A' * len(secret)}", f"{named}x.{secret}", "nonsense"]
        told = set()
        for each in wrong:
            for request in (*_sweeping(), *_requests(*_unknown())):
                told.add(await _outcome(agent.with_share(each), request))
        assert len(told) == 1
        assert "session_not_found" in next(iter(told))
        await victim.end_everything()


async def _times(calls: dict[str, Callable[[], Awaitable[Any]]], rounds: int) -> dict[str, list[float]]:
    """Seconds that each kind of call takes, the kinds mixed so that the machine's load hits all alike."""
    chance = random.Random(11)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in chance.sample(list(calls), len(calls)):
            began = time.perf_counter()
            await calls[name]()
            taken[name].append(time.perf_counter() - began)
    return taken


async def _asked(agent: Agent, kind: Callable[[str], Request], task_id: str | None) -> str:
    """Ask for a task, or where there is no id, for one that has never been."""
    return await _outcome(agent, kind(task_id or _unknown()[0]))


async def test_the_time_of_an_answer_does_not_tell_whether_an_id_exists(tmp_path: Path, store: str) -> None:
    async with open_agent(tmp_path / "state", store=store) as agent:
        victim = agent.of("work", owner="victim")
        known = await _victim(victim)
        stranger = agent.of("default", owner="stranger", named=False)
        await stranger.update(title="mine")
        kinds: list[Callable[[str], Request]] = [
            lambda task_id: PollTask(task_id=task_id),
            lambda task_id: GetResult(task_id=task_id),
            lambda task_id: CancelTask(task_id=task_id),
        ]
        for kind in kinds:
            asked = functools.partial(_asked, stranger, kind)
            theirs, nobodys = functools.partial(asked, known["done"]), functools.partial(asked, None)
            _alike(await _times({"theirs": theirs, "nobodys": nobodys}, _TIMED), kind("x").tool)
        sessions: dict[str, Callable[[], Awaitable[Any]]] = {
            "theirs": lambda: _outcome(agent.of("work", owner="stranger"), SessionInfo()),
            "nobodys": lambda: _outcome(agent.of("none", owner="stranger"), SessionInfo()),
        }
        _alike(await _times(sessions, _TIMED), "session_info")
        named, _, secret = known["token"].rpartition(".")
        guesses: dict[str, Callable[[], Awaitable[Any]]] = {
            "theirs": lambda: _outcome(agent.with_share(f"{named}.{'A' * len(secret)}"), SessionInfo()),
            "nobodys": lambda: _outcome(agent.with_share(f"nonsense.{secret}"), SessionInfo()),
        }
        _alike(await _times(guesses, _TIMED // 3), "share")
        await victim.end_everything()


def _alike(taken: dict[str, list[float]], what: str) -> None:
    """The medians differ by less than the times themselves scatter, and by less than anybody could use."""
    theirs, nobodys = taken["theirs"], taken["nobodys"]
    scatter = statistics.quantiles(nobodys, n=10)[-1] - statistics.quantiles(nobodys, n=10)[0]
    difference = abs(statistics.median(theirs) - statistics.median(nobodys))
    assert difference < max(scatter, 0.000_2), (what, difference, scatter)


def test_every_tool_is_asked() -> None:
    asked = {request.tool for request in (*_requests("a", "b", "c"), *_sweeping())}
    mine_alone = {"update_session"}
    tools = {name for name in dir(Service) if name in _tools()}
    assert tools - asked == mine_alone


def _tools() -> set[str]:
    from mcp_tasks.server.toolsets import tool_set

    return set(tool_set("full"))
