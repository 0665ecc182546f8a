"""Measurements of the server, as its clients see it, against floors that are measured beside it.

Everything is done with the SDK's own client, over stdio but for what is named HTTP. Each value and its
floor are sampled in turns, so that what disturbs one disturbs both, and every figure stands beside its floor.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio

from mcp_tasks.bench.journals import measure_journal
from mcp_tasks.bench.latency import measure_echo, measure_poll, measure_start, measure_wake_up
from mcp_tasks.bench.over_http import measure_http
from mcp_tasks.bench.place import Place, temporary_place
from mcp_tasks.bench.records import measure_records
from mcp_tasks.bench.report import as_json, print_table
from mcp_tasks.bench.samples import Measure
from mcp_tasks.bench.scale import NotMeasurable, measure_restart, measure_running_memory
from mcp_tasks.bench.volume import measure_paging, measure_throughput
from mcp_tasks.errors import InvalidArgument

__all__ = ["MEASUREMENTS", "bench"]

MEASUREMENTS: Mapping[str, Callable[[Place], Awaitable[list[Measure]]]] = {
    "start": measure_start,
    "echo": measure_echo,
    "wake_up": measure_wake_up,
    "poll": measure_poll,
    "restart": measure_restart,
    "throughput": measure_throughput,
    "paging": measure_paging,
    "running": measure_running_memory,
    "records": measure_records,
    "journal": measure_journal,
    "http": measure_http,
}
"""What can be asked for by name, in the order in which it is done."""


def bench(*, json: bool = False, only: Sequence[str] = (), quick: bool = False) -> int:
    """Measure, and print a table, or JSON, on stdout; progress goes to stderr.

    Args:
        json: For machines.
        only: Names from `MEASUREMENTS`; all of them by default.
        quick: Measure little, in under a minute: that everything works, not how fast it is.

    Returns:
        0 when everything was measured, 1 otherwise. A figure over its target is shown, and is no failure.

    Raises:
        InvalidArgument: A name in `only` is unknown.
    """
    unknown = [name for name in only if name not in MEASUREMENTS]
    if unknown:
        raise InvalidArgument(
            f"there is no measurement {unknown[0]!r}", f"there are {', '.join(MEASUREMENTS)}"
        )
    return anyio.run(_bench, list(only) or list(MEASUREMENTS), json, quick)


async def _bench(names: Sequence[str], json: bool, quick: bool) -> int:
    measures: list[Measure] = []
    skipped: dict[str, str] = {}
    failed = False
    with temporary_place(quick=quick) as place:
        for name in names:
            began = time.monotonic()
            try:
                measures += await MEASUREMENTS[name](place)
            except NotMeasurable as reason:
                skipped[name] = str(reason)
            except Exception as error:  # noqa: BLE001 - one that fails takes no other's figures away
                skipped[name] = f"{type(error).__name__}: {error}"
                failed = True
            print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    if json:
        print(as_json(measures, skipped, quick=quick))
    else:
        print_table(measures, skipped, quick=quick)
    return 1 if failed else 0
