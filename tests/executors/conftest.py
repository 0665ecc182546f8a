"""Executors that are closed after the test, with nothing of them left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.executors.rig import Rig

MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[MakeRig]:
    """Makes executors over one place, as several servers have them."""
    rigs: list[Rig] = []

    def make(before: Sequence[str] = (), root: Path = tmp_path) -> Rig:
        rigs.append(Rig(root, before))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    """One server's executor."""
    return make_rig()
