"""The network in simulated time: what arrives while other flows run must be as if all had been known beforehand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from sim.engine import fluid, fluid_loop, network
from sim.engine.network import Network
from sim.errors import InfeasibleError
from sim.schedule.flows import Flows

Entry = list[tuple[int, float]]


@dataclass(frozen=True)
class Sent:
    """A batch of flows and when it is handed to the network."""

    at_s: float
    payload: Sequence[float]
    entries: Sequence[Entry]
    share: Sequence[float] | None = None
    latency_s: float = 0.0
    release: Sequence[float] | None = None
    after: Sequence[int] | None = None


def flows(batches: Sequence[Sent], *, released: bool) -> Flows:
    """All flows of the batches as one; `released` at their batch's time, or at 0."""
    pairs = [entry for one in batches for entry in one.entries]
    sizes = [len(one.payload) for one in batches]
    num, first = sum(sizes), np.cumsum([0, *sizes])
    weights = np.array([weight for entry in pairs for _, weight in entry], dtype=float)

    def joined(name: str, default: float) -> np.ndarray:
        return np.concatenate(
            [
                np.full(len(b.payload), default) if getattr(b, name) is None else getattr(b, name)
                for b in batches
            ]
        )

    waits = joined("after", -1).astype(np.int64)
    offset = np.repeat(first[:-1], sizes)
    start = np.repeat([one.at_s for one in batches], sizes) if released else np.zeros(num)
    return Flows(
        payload_bytes=np.concatenate([one.payload for one in batches]).astype(float),
        share=joined("share", 1.0).astype(float),
        release_s=start + joined("release", 0.0),
        latency_s=np.repeat([one.latency_s for one in batches], sizes).astype(float),
        after=np.where(waits >= 0, waits + offset, -1),
        start=np.concatenate([[0], np.cumsum([len(entry) for entry in pairs])]).astype(np.int64),
        resource=np.array([row for entry in pairs for row, _ in entry], dtype=np.int32),
        wire=weights,
        line=weights,
        party_flow=np.arange(num),
        party_rank=np.zeros(num, dtype=np.int64),
    )


def links(capacity: Sequence[float]) -> Any:
    rates = np.array(capacity, dtype=float)
    names = tuple(f"link{i}" for i in range(len(rates)))
    return SimpleNamespace(
        names=names, capacity=rates, capacity_at=lambda _: rates, windows=(), instants=np.zeros(0)
    )


@dataclass
class Outcome:
    finish: list[np.ndarray]  # of each batch
    told_at: list[float]  # when each batch's event fired
    net: Network


def send(capacity: Sequence[float], batches: Sequence[Sent], *, gather: float = 0.0) -> Outcome:
    """Hand every batch to one network at its time."""
    env = simpy.Environment()
    outcome = Outcome([np.empty(0)] * len(batches), [np.nan] * len(batches), Network(env, links(capacity)))

    def kernel(i: int, one: Sent) -> Generator[simpy.Event, Any, None]:
        yield env.timeout(one.at_s)
        outcome.finish[i] = yield outcome.net.transfer(flows([one], released=False), gather_fraction=gather)
        outcome.told_at[i] = env.now

    for i, one in enumerate(batches):
        env.process(kernel(i, one))
    env.run()
    return outcome


def known_beforehand(capacity: Sequence[float], batches: Sequence[Sent]) -> tuple[np.ndarray, np.ndarray]:
    """Finish times and saturated seconds of one batch with releases: no rewinding there."""
    whole = flows(batches, released=True)
    here = fluid.island(whole, np.array(capacity, dtype=float), 0.0, gather_fraction=0.0)
    while here.advance(np.inf) not in (fluid.Stop.DONE, fluid.Stop.STUCK):
        here.log_count = 0
    saturated = np.zeros(len(capacity))
    saturated[here.rows] = here.saturated_s
    return here.finish + here.latency, saturated


def carried(net: Network) -> np.ndarray:
    total = np.zeros(len(net.cluster.capacity))
    for stretch in net.stretches:
        total[stretch.rows] += (stretch.end_s - stretch.start_s) @ stretch.used.astype(float)
    return total


@pytest.fixture(params=["plain", "machine_code"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(fluid, "_loop", lambda *_: getattr(fluid_loop.advance, request.param))
    return str(request.param)


# --- solved by hand ------------------------------------------------------------------------------------------------


def test_a_newcomer_halves_the_rate_of_the_flow_it_meets(loop: str) -> None:
    """4 bytes from 0 and 2 bytes from 1 on a link of 1: until 5 both at 1/2; the first has 1 left: 6."""
    found = send([1], [Sent(0, [4], [[(0, 1)]]), Sent(1, [2], [[(0, 1)]])])
    assert [*found.finish[0], *found.finish[1]] == pytest.approx([6, 5])
    assert found.told_at == pytest.approx([6, 5])


def test_arrivals_of_one_instant_are_solved_together(loop: str) -> None:
    found = send([6], [Sent(2, [4], [[(0, 1)]]) for _ in range(3)])
    assert np.concatenate(found.finish) == pytest.approx([4, 4, 4])
    assert found.net.stretches[0].used == pytest.approx(np.array([[6]]))
    assert len(found.net.stretches) == 1


def test_a_newcomer_at_the_very_end_of_another_batch_finds_the_link_free(loop: str) -> None:
    found = send([3], [Sent(0, [1, 2], [[(0, 1)], [(0, 1)]]), Sent(1, [3], [[(0, 1)]])])
    assert np.concatenate(found.finish) == pytest.approx([2 / 3, 1, 2])


def test_a_bridge_merges_three_islands(loop: str) -> None:
    """Three flows alone on links of 1; at 1 a fourth over all three halves them.

    2 bytes: 1 left at 1, at 1/2: ends at 3. The bridge of 3 then goes on at 1/2 (the others are 4 and 8 long):
    at 7 the second and the bridge are done; the third has 4 left: 11.
    """
    lone = [Sent(0, [size], [[(i, 1.0)]]) for i, size in enumerate([2, 4, 8])]
    found = send([1, 1, 1], [*lone, Sent(1, [3], [[(0, 1), (1, 1), (2, 1)]])])
    assert np.concatenate(found.finish) == pytest.approx([3, 7, 11, 7])
    assert found.net.saturated_s == pytest.approx([3, 7, 11])
    assert carried(found.net) == pytest.approx([5, 7, 11], rel=1e-6)


def test_an_island_that_nobody_joins_is_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five newcomers on link 0 take nothing back on link 1, and leave its times as they are."""
    runs: list[tuple[int, ...]] = []
    ahead = network._Runner.run_ahead

    def spy(self: network._Runner, horizon_s: float) -> fluid.Stop:
        runs.append(tuple(self.island.rows.tolist()))
        return ahead(self, horizon_s)

    monkeypatch.setattr(network._Runner, "run_ahead", spy)
    busy = [Sent(0.5 * i, [3], [[(0, 1)]]) for i in range(6)]
    found = send([1, 1], [Sent(0, [10], [[(1, 1)]]), *busy])
    assert found.finish[0] == pytest.approx([10])
    assert runs.count((1,)) == 1
    assert runs.count((0,)) > 6


def test_latency_is_after_the_last_byte_and_holds_no_link(loop: str) -> None:
    found = send([1], [Sent(0, [2], [[(0, 1)]], latency_s=5), Sent(2, [1], [[(0, 1)]])])
    assert np.concatenate(found.finish) == pytest.approx([7, 3])
    assert found.told_at == pytest.approx([7, 3])


def test_a_batch_without_flows_ends_at_once() -> None:
    found = send([1], [Sent(3, [], [])])
    assert found.told_at == [3]
    assert len(found.finish[0]) == 0


def test_dependencies_inside_a_batch_survive_a_rewind(loop: str) -> None:
    """b waits for a. A newcomer at 1 delays a from 2 to 3 (1 byte at 1/2), and with it b: 3 + 2 x 0.25 + 1 (the link is
    free again at 3: the newcomer's 1 byte ran 1..3)."""
    chain = Sent(0, [2, 1], [[(0, 1)], [(0, 1)]], latency_s=0.25, after=[-1, 0])
    found = send([1], [chain, Sent(1, [1], [[(0, 1)]])])
    assert found.finish[0] == pytest.approx([3.25, 4.75])
    assert found.finish[1] == pytest.approx([3])


def test_bytes_that_wait_forever_name_the_dead_link(loop: str) -> None:
    """Also where the first flow of the island only waits for the one that is stuck."""
    with pytest.raises(InfeasibleError, match="link1"):
        send([1, 0], [Sent(0, [1, 1], [[(0, 1), (1, 1)], [(0, 1)]])])
    with pytest.raises(InfeasibleError, match="link1"):
        send([1, 0], [Sent(0, [1, 1], [[(0, 1)], [(0, 1), (1, 1)]], after=[1, -1])])


# --- laws ----------------------------------------------------------------------------------------------------------

NUMBER = st.sampled_from([0.5, 1.0, 2.0, 3.0]) | st.floats(0.1, 10.0)
NUM_LINKS = 5


@st.composite
def traffic(draw: st.DrawFn, most: int = 6) -> tuple[list[float], list[Sent]]:
    """Batches at random times, some at one instant, over five links."""
    capacity = draw(st.lists(NUMBER, min_size=NUM_LINKS, max_size=NUM_LINKS))
    batches = []
    for _ in range(draw(st.integers(1, most))):
        num = draw(st.integers(1, 4))
        rows = st.lists(st.tuples(st.integers(0, NUM_LINKS - 1), NUMBER), min_size=1, max_size=3)
        batches.append(
            Sent(
                at_s=draw(st.sampled_from([0.0, 0.0, 1.0, 1.5]) | st.floats(0, 8)),
                payload=draw(st.lists(NUMBER, min_size=num, max_size=num)),
                entries=draw(st.lists(rows, min_size=num, max_size=num)),
                share=draw(st.lists(NUMBER, min_size=num, max_size=num)),
                latency_s=draw(st.sampled_from([0.0, 0.0, 0.7])),
                release=draw(st.lists(st.sampled_from([0.0, 0.0, 0.5, 2.0]), min_size=num, max_size=num)),
                after=[draw(st.integers(-1, i - 1)) if draw(st.booleans()) else -1 for i in range(num)],
            )
        )
    return capacity, batches


@pytest.mark.parametrize("kind", ["plain", "machine_code"])
@given(problem=traffic())
def test_batches_that_come_one_by_one_are_as_one_batch_with_releases(
    problem: tuple[list[float], list[Sent]], kind: str
) -> None:
    capacity, batches = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fluid, "_loop", lambda *_: getattr(fluid_loop.advance, kind))
        found = send(capacity, batches)
        finish, saturated = known_beforehand(capacity, batches)
    np.testing.assert_allclose(np.concatenate(found.finish), finish, rtol=1e-9)
    np.testing.assert_allclose(found.net.saturated_s, saturated, rtol=1e-7, atol=1e-7)
    moved = flows(batches, released=False).line_by_resource(len(capacity))
    np.testing.assert_allclose(carried(found.net), moved, rtol=1e-5, atol=1e-5)
    for one, told in zip(found.finish, found.told_at, strict=True):
        assert told == pytest.approx(one.max(), rel=1e-9)
    for stretch in found.net.stretches:
        assert np.all(stretch.used <= np.array(capacity)[stretch.rows] * (1 + 1e-6))
        assert np.all(stretch.start_s < stretch.end_s)
    assert not found.net._runners


@given(traffic(most=3), st.lists(st.floats(0.01, 12.0), min_size=1, max_size=25))
def test_crumbs_that_take_an_island_back_again_and_again_change_nothing(
    problem: tuple[list[float], list[Sent]], times: list[float]
) -> None:
    """Newcomers of almost no bytes rewind every island, and must not move its times by more than they weigh."""
    capacity, batches = problem
    crumbs = [Sent(at, [1e-12], [[(row, 1.0) for row in range(NUM_LINKS)]]) for at in times]
    alone, disturbed = send(capacity, batches), send(capacity, [*batches, *crumbs])
    for one, other in zip(alone.finish, disturbed.finish[: len(batches)], strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(carried(disturbed.net), carried(alone.net), rtol=1e-5, atol=1e-5)


@given(traffic())
def test_what_starts_later_changes_nothing_before_it(problem: tuple[list[float], list[Sent]]) -> None:
    """Causality: flows that are done when a newcomer arrives keep their times, rewound or not."""
    capacity, batches = problem
    batches = sorted(batches, key=lambda one: one.at_s)
    without, with_ = send(capacity, batches[:-1]), send(capacity, batches)
    for one, other in zip(without.finish, with_.finish[:-1], strict=True):
        early = one - 0.7 <= batches[-1].at_s  # latency included in `one`, at most 0.7
        sure = early & (one <= batches[-1].at_s)
        np.testing.assert_allclose(other[sure], one[sure], rtol=1e-9)


@given(traffic(), st.permutations(range(6)))
def test_the_order_in_which_processes_start_changes_nothing(
    problem: tuple[list[float], list[Sent]], order: list[int]
) -> None:
    capacity, batches = problem
    order = [i for i in order if i < len(batches)]
    straight, shuffled = send(capacity, batches), send(capacity, [batches[i] for i in order])
    for place, i in enumerate(order):
        np.testing.assert_allclose(shuffled.finish[place], straight.finish[i], rtol=1e-9)


@given(traffic())
def test_gathering_keeps_capacity_and_bytes(problem: tuple[list[float], list[Sent]]) -> None:
    capacity, batches = problem
    found = send(capacity, batches, gather=0.01)
    moved = flows(batches, released=False).line_by_resource(len(capacity))
    assert np.all(carried(found.net) >= moved * (1 - 1e-5) - 1e-5)
    for stretch in found.net.stretches:
        assert np.all(stretch.used <= np.array(capacity)[stretch.rows] * (1 + 1e-6))
    assert all(np.isfinite(one).all() for one in found.finish)


PROGRAM = """
import json, sys
from sim import documents
from sim.runs.run import run_document
text = '''
name: seeds
cluster: {hardware: h800, nodes: 4}
model: deepseek-v3
layout: {ep: 16}
workload:
  kind: all_to_all
  tokens_per_rank: 64
  gate: {kind: zipf, exponent: 0.8}
  kernel: {kind: KERNEL}
'''
result = run_document(documents.loads(text.replace('KERNEL', sys.argv[1]), 'seeds.yaml'))
print(json.dumps([result['metrics'], result['links']]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["two_hop", "low_latency"])
def test_the_bytes_of_a_result_do_not_depend_on_the_hash_seed(kernel: str) -> None:
    """Two EP groups on four nodes, twice, in fresh interpreters."""
    root = Path(__file__).parents[2]
    printed = []
    for seed in ("0", "4242"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        command = [sys.executable, "-c", PROGRAM, kernel]
        printed.append(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
    assert printed[0] == printed[1]
    assert printed[0]
