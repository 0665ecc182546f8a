"""That everything can be measured. How fast it is, `mcp-tasks bench` says, and no test."""

from __future__ import annotations

import json

import pytest

import mcp_tasks.bench
from mcp_tasks.bench import MEASUREMENTS, bench
from mcp_tasks.bench.place import Place
from mcp_tasks.bench.samples import Measure
from mcp_tasks.bench.scale import NotMeasurable
from mcp_tasks.errors import InvalidArgument


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_quick_run_measures(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = bench(json=True, only=[name], quick=True)

    document = json.loads(capsys.readouterr().out)
    assert exit_code == 0, document["not_measured"]
    if not document["not_measured"]:
        assert document["measures"]
        assert all(measure["median"] is not None for measure in document["measures"])


def test_a_measurement_that_fails_takes_no_others_figures_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fails(place: Place) -> list[Measure]:
        raise RuntimeError("the server is not well")

    async def cannot(place: Place) -> list[Measure]:
        raise NotMeasurable("not on this platform")

    measurements = {"broken": fails, "elsewhere": cannot}
    monkeypatch.setattr(mcp_tasks.bench, "MEASUREMENTS", measurements)

    assert bench(only=["elsewhere"]) == 0
    assert bench() == 1

    shown = capsys.readouterr().out
    assert "not measured: broken: RuntimeError: the server is not well" in shown
    assert "not measured: elsewhere: not on this platform" in shown


def test_an_unknown_measurement_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match="no measurement 'speed'"):
        bench(only=["speed"])
