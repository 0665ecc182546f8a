"""What was measured, as a table for people and as JSON for machines."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mcp_tasks.bench.samples import Limit, Measure, Samples

__all__ = ["as_json", "print_table"]

SCHEMA = 1

_FILE_WIDTH = 120


def as_json(measures: Sequence[Measure], failures: dict[str, str], *, quick: bool) -> str:
    """Everything as one JSON object.

    In a quick run `met` is null: so few samples promise nothing.
    """
    document = {
        "schema": SCHEMA,
        "quick": quick,
        "machine": _machine(),
        "measures": [_entry(measure, quick=quick) for measure in measures],
        "not_measured": failures,
    }
    return json.dumps(document, indent=2)


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def _entry(measure: Measure, *, quick: bool) -> dict[str, Any]:
    return {
        "name": measure.name,
        "title": measure.title,
        "unit": measure.unit,
        **_figures(measure.value),
        "floor": {"title": measure.floor_title, **_figures(measure.floor)} if measure.floor else None,
        "ratio": _rounded(measure.ratio),
        "target": {"kind": measure.limit.kind, "number": measure.limit.number} if measure.limit else None,
        "met": None if quick else measure.met,
        "note": measure.note,
    }


def _figures(samples: Samples) -> dict[str, Any]:
    return {"median": _rounded(samples.median), "p95": _rounded(samples.p95), "samples": len(samples.values)}


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.4g}")


def print_table(measures: Sequence[Measure], failures: dict[str, str], *, quick: bool) -> None:
    """Print what was measured, each value with its floor beside it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_FILE_WIDTH)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("median of each", min_width=24)
    for heading in ("value", "p95", "floor", "x floor", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("met")
    for measure in measures:
        floor = measure.floor
        table.add_row(
            measure.title,
            _with_unit(measure.value.median, measure.unit),
            _with_unit(measure.value.p95, measure.unit) if len(measure.value.values) > 1 else "",
            _with_unit(floor.median, measure.unit) if floor else "",
            f"{measure.ratio:.2f}" if measure.ratio is not None else "",
            _target(measure.limit, measure.unit),
            "" if quick else _verdict(measure.met),
        )
    console.print(table)
    for measure in measures:
        remarks = [f"floor: {measure.floor_title}"] if measure.floor else []
        remarks += [measure.note] if measure.note else []
        if remarks:
            console.print(Text.assemble((f"{measure.title}: ", "bold"), "; ".join(remarks)))
    for name, reason in failures.items():
        console.print(Text(f"not measured: {name}: {reason}", "red"))
    if quick:
        console.print("A quick run: it shows that everything can be measured, and promises no figures.")


def _verdict(met: bool | None) -> str:
    if met is None:
        return ""
    return "[green]yes[/green]" if met else "[red]no[/red]"


def _target(limit: Limit | None, unit: str) -> str:
    if limit is None:
        return ""
    sign = "<=" if limit.kind.endswith("at_most") else ">="
    what = f"{limit.number:g} x floor" if limit.kind.startswith("ratio") else f"{limit.number:g} {unit}"
    return f"{sign} {what}"


def _with_unit(number: float, unit: str) -> str:
    digits = 0 if number >= 100 else 2
    return f"{number:,.{digits}f} {unit}"
