"""The sharing law beside an independent solver, flow by flow."""

from __future__ import annotations

import numpy as np
import pytest

from sim.documents import data_folder
from sim.engine import fluid
from sim.validation.max_min import read

CASES = sorted(
    file.name.removesuffix(".csv.gz")
    for file in (data_folder("scenarios") / "published/simgrid").glob("*.gz")
)


def test_all_six_cases_are_carried() -> None:
    assert sum(read(name).flows.num_flows for name in CASES) == 4184


@pytest.mark.parametrize("name", CASES)
def test_every_flow_ends_when_simgrid_says(name: str) -> None:
    theirs = read(name)
    np.testing.assert_allclose(fluid.drained(theirs.flows, theirs.capacity), theirs.end_s, rtol=1e-9)


@pytest.mark.parametrize("gather", [5e-4, 2e-3])
def test_gathered_ends_lie_within_the_window_of_each_end_before_them(gather: float) -> None:
    """On the case with the most flows: the mean flow is off by less than the window, and the last by a few."""
    theirs = read("s5-mesh200x1500")
    found = fluid.drained(theirs.flows, theirs.capacity, gather_fraction=gather)
    differs = np.abs(found - theirs.end_s) / theirs.end_s.max()
    assert differs.mean() < gather
    assert found.max() == pytest.approx(theirs.end_s.max(), rel=10 * gather)
