"""What a journal costs: written one by one and in groups, read and searched when it has grown long."""

from __future__ import annotations

import functools
import itertools
import random
import time
from collections.abc import Callable

from mcp_tasks.bench.floors import durable_commit
from mcp_tasks.bench.place import Place
from mcp_tasks.bench.samples import Limit, Measure, Sample, Samples, in_turns
from mcp_tasks.clock import Clock
from mcp_tasks.models import Draft, SessionKey
from mcp_tasks.stores.journal.file import JournalFile

__all__ = ["measure_journal"]

_SESSION = SessionKey("bench", "long")
_GROUP = 1_000
_PAGE = 100
_WORDS = 2_000


async def measure_journal(place: Place) -> list[Measure]:
    """Append, append in groups, read a page and search, in a journal without a live limit."""
    total = place.count(100_000, 2_000)
    chance = random.Random(1)  # noqa: S311 - the same texts each time, and no secret
    words = [f"word{number}" for number in range(_WORDS)]

    def draft() -> Draft:
        return Draft(_SESSION, "assistant", " ".join(chance.choices(words, k=20)), _now_ms())

    journal = JournalFile(place.folder / "journal", Clock())
    try:
        grouped = []
        for _ in range(total // _GROUP):
            drafts = [draft() for _ in range(_GROUP)]
            grouped.append(_GROUP / _took_ms(functools.partial(journal.append, drafts)))
        pages = itertools.cycle(range(_PAGE, total, 997))
        with durable_commit(place.folder, draft().text.encode()) as commit:
            taken = await in_turns(
                place.count(300, 5),
                {
                    "bare": _per_second(commit),
                    "append": _per_second(_sample(lambda: journal.append([draft()]))),
                    "page": _sample(lambda: journal.read(_SESSION, after=next(pages), limit=_PAGE)),
                    "search": _sample(lambda: journal.search(_SESSION, " ".join(chance.sample(words, 2)))),
                },
            )
    finally:
        journal.close()
    return [
        Measure(
            "journal_append",
            f"journal of {total:,} messages: appending one",
            "/s",
            taken["append"],
            taken["bare"],
            "the same text as a row of a bare SQLite connection, WAL, full sync",
            Limit("ratio_at_least", 0.8),
        ),
        Measure(
            "journal_groups",
            f"journal: appending {_GROUP:,} at once",
            "/ms",
            Samples(tuple(grouped)),
            limit=Limit("at_least", 10),
        ),
        Measure(
            "journal_page",
            f"journal of {total:,} messages: a page of {_PAGE}",
            "ms",
            taken["page"],
            limit=Limit("at_most", 50),
        ),
        Measure(
            "journal_search",
            f"journal of {total:,} messages: a search for two words",
            "ms",
            taken["search"],
            limit=Limit("at_most", 50),
        ),
    ]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _took_ms(work: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - began) / 1e6


def _sample(work: Callable[[], object]) -> Sample:
    async def sample() -> float:
        return _took_ms(work)

    return sample


def _per_second(sample: Sample) -> Sample:
    async def rate() -> float:
        return 1_000 / await sample()

    return rate
