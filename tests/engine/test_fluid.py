"""The fluid network: max-min fairness, closed forms of drain times, and the two loops against each other."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from max_min import Rates, max_min_rates
from sim.engine import fluid, fluid_loop, sharing
from sim.engine.fluid import Island, Stop
from sim.schedule.flows import Flows

LOOPS = {"plain": fluid_loop.advance.plain, "compiled": fluid_loop.advance.machine_code}


def flows(
    payload: Sequence[float],
    entries: Sequence[dict[int, float] | list[tuple[int, float]]],
    *,
    share: Sequence[float] | None = None,
    release: Sequence[float] | None = None,
    latency: Sequence[float] | None = None,
    after: Sequence[int] | None = None,
) -> Flows:
    """Flows of `payload` bytes; `entries` of each: resource -> line weight."""
    num = len(payload)
    pairs = [list(one.items()) if isinstance(one, dict) else one for one in entries]
    weights = np.array([weight for one in pairs for _, weight in one], dtype=float)
    return Flows(
        payload_bytes=np.array(payload, dtype=float),
        share=np.ones(num) if share is None else np.array(share, dtype=float),
        release_s=np.zeros(num) if release is None else np.array(release, dtype=float),
        latency_s=np.zeros(num) if latency is None else np.array(latency, dtype=float),
        after=np.full(num, -1) if after is None else np.array(after, dtype=np.int64),
        start=np.concatenate([[0], np.cumsum([len(one) for one in pairs])]).astype(np.int64),
        resource=np.array([row for one in pairs for row, _ in one], dtype=np.int32),
        wire=weights,
        line=weights,
        party_flow=np.arange(num),
        party_rank=np.zeros(num, dtype=np.int64),
    )


@dataclass
class Spans:
    """All log rows of a run: start, end [s], capacity in use."""

    start: np.ndarray
    end: np.ndarray
    used: np.ndarray  # [num_spans, num_resources of the island]

    def carried(self) -> np.ndarray:
        return np.asarray((self.end - self.start) @ self.used)


def drain(here: Island, loop: Callable[..., int], horizon: float = np.inf) -> tuple[Stop, Spans]:
    """Run an island to its end with one of the two loops."""
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fluid, "_loop", lambda *_: loop)
        while True:
            here.log_count = 0
            stop, n = here.advance(horizon), here.log_count
            rows.append(
                (here.log_time[0, :n].copy(), here.log_time[1, :n].copy(), here.log_used[:n].astype(float))
            )
            if stop not in (Stop.LOG_FULL, Stop.BATCH):
                return stop, Spans(*(np.concatenate([row[i] for row in rows]) for i in range(3)))


def finish(some: Flows, capacity: Sequence[float], loop: str = "plain", gather: float = 0.0) -> np.ndarray:
    here = fluid.island(some, np.array(capacity, dtype=float), 0.0, gather_fraction=gather)
    drain(here, LOOPS[loop])
    return here.finish


def rates(some: Flows, capacity: Sequence[float]) -> Rates:
    active = np.ones(some.num_flows, dtype=bool)
    return max_min_rates(
        some.start, some.resource, some.line, some.share, np.array(capacity, dtype=float), active
    )


@pytest.fixture(params=sorted(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- solved by hand ------------------------------------------------------------------------------------------------


def test_two_flows_into_one_nic_each_get_half(loop: str) -> None:
    assert rates(flows([8, 8], [{0: 1, 2: 1}, {1: 1, 2: 1}]), [4, 4, 4]).rate == pytest.approx([2, 2])
    assert finish(flows([8, 8], [{0: 1, 2: 1}, {1: 1, 2: 1}]), [4, 4, 4], loop) == pytest.approx([4, 4])


@pytest.mark.parametrize("num_senders", [1, 2, 7, 31])
def test_k_senders_into_one_nic_take_k_times_as_long(num_senders: int, loop: str) -> None:
    into_one = flows([10.0] * num_senders, [{k: 1, num_senders: 1} for k in range(num_senders)])
    assert finish(into_one, [5.0] * (num_senders + 1), loop) == pytest.approx(
        [num_senders * 10 / 5] * num_senders
    )


def test_the_long_flow_of_a_line_network_leaves_the_rest_to_the_short_ones() -> None:
    """Bertsekas and Gallager, 6.5.2: the link of 1 gives 1/2 and 1/2; the link of 2 has 3/2 left."""
    found = rates(flows([1, 1, 1], [{0: 1, 1: 1}, {0: 1}, {1: 1}]), [1, 2])
    assert found.rate == pytest.approx([0.5, 0.5, 1.5])
    assert found.bottleneck.tolist() == [0, 0, 1]
    assert found.used == pytest.approx([1, 2])


def test_shares_divide_a_link_in_proportion() -> None:
    assert rates(flows([1, 1], [{0: 1}, {0: 1}], share=[1, 3]), [8]).rate == pytest.approx([2, 6])


def test_a_line_weight_of_two_costs_twice_the_capacity() -> None:
    """Equal rates x: 1 x + 2 x = 9."""
    assert rates(flows([1, 1], [{0: 1}, {0: 2}]), [9]).rate == pytest.approx([3, 3])


def test_a_resource_named_twice_by_a_flow_counts_twice(loop: str) -> None:
    twice = flows([6], [[(0, 1.0), (1, 1.0), (0, 2.0)]])
    assert rates(twice, [3, 9]).rate == pytest.approx([1])
    assert finish(twice, [3, 9], loop) == pytest.approx([6])


def test_a_late_flow_halves_the_rate_of_an_early_one(loop: str) -> None:
    """A: 2 bytes from 0, alone until 1, then at 1/2 until 3. B: 2 bytes from 1, at 1/2 until 3, alone until 4."""
    assert finish(flows([2, 2], [{0: 1}, {0: 1}], release=[0, 1]), [1], loop) == pytest.approx([3, 4])


def test_three_staggered_flows_over_two_links(loop: str) -> None:
    """A on both links, B (from 1) on the first, C (from 2) on the second; links of 2.

    0-1: A 2 (2 of 6 done). 1-2: A 1, B 1 (A 3, B 1). 2-: A 1, B 1, C 1 until A's other 3 are done at 5: B 4, C 3.
    Then B has 2 left at 2 a second: 6; C 4 left at 2: 7.
    """
    some = flows([6, 6, 7], [{0: 1, 1: 1}, {0: 1}, {1: 1}], release=[0, 1, 2])
    assert finish(some, [2, 2], loop) == pytest.approx([5, 6, 7])


def test_a_dependent_flow_starts_one_latency_there_and_one_back_after(loop: str) -> None:
    """The first is out at 2, there at 2.5, word of it back at 3; the other takes 1."""
    some = flows([2, 1], [{0: 1}, {0: 1}], latency=[0.5, 0.5], after=[-1, 0])
    assert finish(some, [1], loop) == pytest.approx([2, 4])


def test_a_chain_of_flows_adds_up_and_contends_meanwhile(loop: str) -> None:
    """a (1) and other (4) share 1 byte/s: a ends at 2. b runs 2..4 (1 byte at 1/2), c 4..6; the other ends at 6 + 1."""
    some = flows([1, 1, 1, 4], [{0: 1}] * 4, after=[-1, 0, 1, -1])
    assert finish(some, [1], loop) == pytest.approx([2, 4, 6, 7])


def test_flows_without_bytes_or_resources_end_on_release(loop: str) -> None:
    some = flows([0, 5, 4], [{0: 1}, {}, {0: 1}], release=[1, 2, 0])
    assert finish(some, [1], loop) == pytest.approx([1, 2, 4])


def test_a_dead_resource_stops_its_flows_alone(loop: str) -> None:
    here = fluid.island(flows([1, 1], [{0: 1, 1: 1}, {1: 1}]), np.array([0.0, 1.0]), 0.0, gather_fraction=0.0)
    stop, _ = drain(here, LOOPS[loop])
    assert stop is Stop.STUCK
    assert math.isnan(here.finish[0])
    assert here.finish[1] == pytest.approx(1)


def test_a_horizon_stops_the_clock_there_and_nowhere_else(loop: str) -> None:
    here = fluid.island(flows([4, 2], [{0: 1}, {0: 1}]), np.array([2.0]), 10.0, gather_fraction=0.0)
    stop, _ = drain(here, LOOPS[loop], horizon=11.0)
    assert (stop, here.time_s) == (Stop.HORIZON, 11.0)
    assert here.left == pytest.approx([3, 1])
    drain(here, LOOPS[loop])
    assert here.finish == pytest.approx([13, 12])


def test_a_full_log_is_no_end(loop: str) -> None:
    """More completions than the log has rows: 400 flows of 1..400 bytes on one link end one by one."""
    num = fluid.LOG_ROWS + 144
    sizes = np.arange(1.0, num + 1)
    here = fluid.island(flows(sizes, [{0: 1}] * num), np.array([1.0]), 0.0, gather_fraction=0.0)
    stop, spans = drain(here, LOOPS[loop])
    waits = np.concatenate([[0], sizes[:-1]])
    assert stop is Stop.DONE
    assert here.finish == pytest.approx(np.cumsum((sizes - waits) * (num - np.arange(num))))
    assert spans.carried() == pytest.approx([sizes.sum()], rel=1e-6)
    assert here.saturated_s == pytest.approx([sizes.sum()])


# --- laws ----------------------------------------------------------------------------------------------------------

NICE = st.sampled_from([0.5, 1.0, 2.0, 3.0])  # ties are common
ANY = st.floats(0.1, 10.0)
NUMBER = NICE | ANY


@st.composite
def problems(
    draw: st.DrawFn, *, timed: bool = True, dead: bool = True, empty: bool = True, by_bytes: bool = False
) -> tuple[Flows, np.ndarray]:
    """Random flows and capacities. `timed`: releases and dependencies; `by_bytes`: shares equal bytes."""
    num_resources, num = draw(st.integers(1, 6)), draw(st.integers(1, 10))
    capacity = draw(
        st.lists((NUMBER | st.just(0.0)) if dead else NUMBER, min_size=num_resources, max_size=num_resources)
    )
    entry = st.tuples(st.integers(0, num_resources - 1), NUMBER)
    entries = draw(
        st.lists(st.lists(entry, min_size=0 if empty else 1, max_size=4), min_size=num, max_size=num)
    )
    payload = draw(st.lists(NUMBER, min_size=num, max_size=num))
    share = payload if by_bytes else draw(st.lists(NUMBER, min_size=num, max_size=num))
    release, after, latency = [0.0] * num, [-1] * num, [0.0] * num
    if timed:
        release = draw(st.lists(st.just(0.0) | NUMBER, min_size=num, max_size=num))
        latency = draw(st.lists(st.just(0.0) | NUMBER, min_size=num, max_size=num))
        after = [draw(st.integers(-1, i - 1)) if draw(st.booleans()) else -1 for i in range(num)]
    some = flows(payload, entries, share=share, release=release, latency=latency, after=after)
    return some, np.array(capacity)


def line_load(some: Flows, num_resources: int) -> np.ndarray:
    return some.line_by_resource(num_resources)


@given(problems(timed=False))
def test_rates_are_weighted_max_min_fair(problem: tuple[Flows, np.ndarray]) -> None:
    """Each flow crosses a full resource on which no other flow has a higher level; nothing is above capacity.

    This is necessary and sufficient (Bertsekas and Gallager, 6.5.2), whatever the algorithm.
    """
    some, capacity = problem
    found = rates(some, list(capacity))
    flow = some.flow_of_entry
    used = np.bincount(some.resource, some.line * found.rate[flow], len(capacity))
    level = found.rate / some.share
    assert np.all(used <= capacity * (1 + 1e-9) + 1e-12)
    np.testing.assert_allclose(found.used, used, rtol=1e-9, atol=1e-12)
    for f in range(some.num_flows):
        rows = some.resource[some.start[f] : some.start[f + 1]]
        if not len(rows):
            assert found.rate[f] == np.inf
            continue
        assert any(
            used[r] >= capacity[r] * (1 - 1e-9)
            and level[f] >= level[flow[some.resource == r]].max() * (1 - 1e-9)
            for r in rows
        )
        assert found.bottleneck[f] in rows


def crossed(
    some: Flows, capacity: np.ndarray, parts: Sequence[np.ndarray], form: str, *, led: bool
) -> sharing.Crossings:
    """Who crosses what: bundles of one part of the flows after those of another."""
    whole = []
    entries, resources = len(some.resource), len(capacity)
    with np.errstate(divide="ignore"):
        slowness = (some.line / capacity[some.resource])[None]
    for part in parts:
        c, s = sharing.crossings(entries, resources), sharing.scratch(resources, resources)
        flows_of = part, len(part), some.start, some.resource.astype(np.int64), some.line, some.share
        num = getattr(sharing.cross, form)(*flows_of, c, s)
        last = c.first[num]
        c = sharing.Crossings(
            c.resource[:num], c.first[: num + 1], c.flow[:last], c.entry[:last], c.asked[:num], c.leader[:num]
        )
        if led:
            sharing.lead(c, slowness, np.ones(entries, dtype=bool))
        whole.append(c)
    before = np.cumsum([0, *(len(c.flow) for c in whole)])
    first = [c.first[:-1] + num for c, num in zip(whole, before, strict=False)]
    columns = {name: np.concatenate([getattr(c, name) for c in whole]) for name in sharing.Crossings._fields}
    return sharing.Crossings(**columns | {"first": np.append(np.concatenate(first), before[-1])})


@given(problems(), st.booleans(), st.integers(1, 3))
def test_the_sharing_law_is_what_whole_arrays_say(
    problem: tuple[Flows, np.ndarray], led: bool, num_parts: int
) -> None:
    """Plain and compiled, against another implementation: rates, and who holds whom back.

    In one bundle a resource or in several, and whether or not those that another fills before are left out.
    """
    some, capacity = problem
    expected = rates(some, capacity.tolist())
    num = some.num_flows
    parts = [np.arange(i, num, num_parts) for i in range(num_parts)]
    for form in ("plain", "compiled"):
        c = crossed(some, capacity, parts, form, led=led)
        rate, held_by = np.zeros(num), np.zeros(num, dtype=np.int64)
        room = sharing.scratch(len(capacity), len(c.resource))
        getattr(sharing.max_min, form)(
            np.arange(num), num, some.start, some.resource.astype(np.int64), some.line, some.share, capacity,
            np.arange(len(c.resource)), len(c.resource), rate, held_by, c, room,
        )  # fmt: skip
        np.testing.assert_allclose(rate, expected.rate, rtol=1e-9)
        assert ((held_by < 0) == (expected.bottleneck < 0)).all()
        assert (room.last < 0).all()


def test_a_link_behind_a_slower_one_is_left_out() -> None:
    """Two flows cross a link of 2 and one of 4: the first leads the second, unless a third flow crosses the second alone."""
    some, capacity = flows([1, 1, 1], [{0: 1, 1: 1}, {0: 1, 1: 1}, {1: 1}]), np.array([2.0, 4.0])
    every = np.arange(3)
    assert crossed(some, capacity, [every[:2]], "plain", led=True).leader.tolist() == [-1, 0]
    assert crossed(some, capacity, [every], "plain", led=True).leader.tolist() == [-1, -1]
    assert crossed(some, capacity[::-1], [every[:2]], "plain", led=True).leader.tolist() == [1, -1]
    branch = flows([1, 1], [{0: 1}, {0: 1, 1: 1}])
    assert crossed(branch, capacity, [every[:2]], "plain", led=True).leader.tolist() == [-1, -1]


@pytest.mark.parametrize("way", ["plain", "compiled"])
def test_flows_without_a_share_get_nothing_and_leave_links_to_the_others(way: str) -> None:
    """One next to another flow, one alone on its link, where there is nothing to divide."""
    some = replace(flows([1, 1, 1], [{0: 1}, {0: 1}, {1: 1}]), share=np.array([0.0, 2.0, 0.0]))
    capacity, rate, held_by = np.array([7.0, 5.0]), np.zeros(3), np.zeros(3, dtype=np.int64)
    c = crossed(some, capacity, [np.arange(3)], way, led=False)
    getattr(sharing.max_min, way)(
        np.arange(3), 3, some.start, some.resource.astype(np.int64), some.line, some.share, capacity,
        np.arange(len(c.resource)), len(c.resource), rate, held_by, c, sharing.scratch(2, len(c.resource)),
    )  # fmt: skip
    assert rate.tolist() == [0.0, 7.0, 0.0]


@given(problems(), st.sampled_from([0.0, 0.0, 1e-3, 0.05]))
def test_both_loops_agree_to_1e_9(problem: tuple[Flows, np.ndarray], gather: float) -> None:
    some, capacity = problem
    plain = fluid.island(some, capacity, 0.0, gather_fraction=gather)
    compiled = copy.deepcopy(plain)
    stop, spans = drain(plain, fluid_loop.advance.plain)
    compiled_stop, compiled_spans = drain(compiled, fluid_loop.advance.machine_code)
    assert stop is compiled_stop
    np.testing.assert_allclose(compiled.finish, plain.finish, rtol=1e-9)
    np.testing.assert_allclose(compiled.left, plain.left, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(compiled.saturated_s, plain.saturated_s, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(compiled.batch_left, plain.batch_left)
    np.testing.assert_allclose(compiled_spans.carried(), spans.carried(), rtol=1e-5, atol=1e-6)


@given(problems(), st.lists(st.floats(0.01, 3.0), max_size=5))
def test_stopping_at_horizons_changes_nothing(problem: tuple[Flows, np.ndarray], steps: list[float]) -> None:
    some, capacity = problem
    whole = fluid.island(some, capacity, 0.0, gather_fraction=0.0)
    for loop in LOOPS.values():
        stepped, reference = copy.deepcopy(whole), copy.deepcopy(whole)
        drain(reference, loop)
        for horizon in np.cumsum(steps):
            drain(stepped, loop, float(horizon))
        drain(stepped, loop)
        np.testing.assert_allclose(stepped.finish, reference.finish, rtol=1e-9)


@given(problems(timed=False, dead=False, by_bytes=True))
def test_shares_equal_to_bytes_meet_the_bound(problem: tuple[Flows, np.ndarray]) -> None:
    """Completion is the busiest resource's bytes over its capacity, and each flow ends at 1 / its level."""
    some, capacity = problem
    level = rates(some, list(capacity)).rate / some.share
    bound = (line_load(some, len(capacity)) / capacity).max()
    for loop in LOOPS:
        ends = finish(some, list(capacity), loop)
        assert ends.max() == pytest.approx(bound, rel=1e-9, abs=1e-12)
        np.testing.assert_allclose(ends, 1 / level, rtol=1e-9)
    assert fluid.bound_s(fluid.island(some, capacity, 0.0, gather_fraction=0.0)) == pytest.approx(bound)


@given(problems(timed=False, dead=False))
def test_no_completion_beats_the_bound(problem: tuple[Flows, np.ndarray]) -> None:
    some, capacity = problem
    bound = (line_load(some, len(capacity)) / capacity).max()
    for loop in LOOPS:
        assert finish(some, list(capacity), loop).max() >= bound * (1 - 1e-9)


@given(problems(dead=False), st.sampled_from([0.0, 0.01, 0.2]))
def test_no_span_is_above_capacity_and_spans_carry_all_bytes(
    problem: tuple[Flows, np.ndarray], gather: float
) -> None:
    some, capacity = problem
    for loop in LOOPS.values():
        here = fluid.island(some, capacity, 0.0, gather_fraction=gather)
        stop, spans = drain(here, loop)
        assert stop is Stop.DONE
        assert np.all(spans.used <= here.capacity * (1 + 1e-6))
        assert np.all(spans.start[1:] >= spans.end[:-1])
        moved = line_load(some, len(capacity))[here.rows]
        if gather == 0:
            np.testing.assert_allclose(spans.carried(), moved, rtol=1e-5, atol=1e-6)
        else:  # a flow that ends inside a window is logged to its end
            assert np.all(spans.carried() >= moved * (1 - 1e-5) - 1e-6)


@given(problems(timed=False, dead=False), st.floats(0.5, 4.0), st.floats(0.5, 4.0))
def test_time_scales_with_bytes_over_bandwidth(
    problem: tuple[Flows, np.ndarray], more: float, faster: float
) -> None:
    some, capacity = problem
    once = finish(some, list(capacity))
    scaled = flows(
        some.payload_bytes * more,
        [
            list(zip(some.resource[a:b], some.line[a:b], strict=True))
            for a, b in zip(some.start, some.start[1:], strict=False)
        ],
        share=list(some.share),
    )
    np.testing.assert_allclose(finish(scaled, list(capacity * faster)), once * more / faster, rtol=1e-9)


@given(problems(dead=False), st.randoms(use_true_random=False))
def test_the_order_of_resources_changes_nothing(problem: tuple[Flows, np.ndarray], random: object) -> None:
    some, capacity = problem
    order = np.random.default_rng(random.randrange(2**32)).permutation(len(capacity))  # type: ignore[attr-defined]
    renamed = flows(
        some.payload_bytes,
        [list(zip(order[some.resource[a:b]], some.line[a:b], strict=True)) for a, b in zip(some.start, some.start[1:], strict=False)],
        share=list(some.share), release=list(some.release_s), latency=list(some.latency_s), after=list(some.after),
    )  # fmt: skip
    moved = np.empty_like(capacity)
    moved[order] = capacity
    for loop in LOOPS:
        np.testing.assert_allclose(
            finish(renamed, list(moved), loop), finish(some, list(capacity), loop), rtol=1e-9
        )


def test_a_completion_an_ulp_before_a_release_hides_it_not(loop: str) -> None:
    """The first ends at the last float below 1; the second, released at 1, shares the link with the third until 3."""
    some = flows([np.nextafter(1.0, 0.0), 1, 3], [{0: 1}, {1: 1}, {1: 1}], release=[0, 1, 0], share=[1, 1, 1])
    assert finish(some, [1, 1], loop) == pytest.approx([1, 3, 4])


# --- gathering completions -----------------------------------------------------------------------------------------


@given(st.lists(NUMBER, min_size=1, max_size=30), NUMBER, st.sampled_from([5e-4, 0.01, 0.1]))
def test_gathering_on_one_link_is_never_early_and_late_by_a_window_a_completion(
    payload: list[float], capacity: float, gather: float
) -> None:
    """Capacity idles for at most one window after each gathered completion, and is never given out twice."""
    some = flows(payload, [{0: 1}] * len(payload))
    exact = finish(some, [capacity])
    window = gather * sum(payload) / capacity
    for loop in LOOPS:
        late = finish(some, [capacity], loop, gather) - exact
        before = np.argsort(np.argsort(exact, kind="stable"), kind="stable")
        assert np.all(late >= -1e-9 * exact)
        assert np.all(late <= before * window + 1e-9 * exact)


@given(problems(dead=False), st.sampled_from([5e-4, 0.01]))
def test_gathering_moves_a_completion_by_a_window_a_flow_at_most(
    problem: tuple[Flows, np.ndarray], gather: float
) -> None:
    some, capacity = problem
    window = gather * (line_load(some, len(capacity)) / capacity).max()
    exact = finish(some, list(capacity)).max()
    for loop in LOOPS:
        assert (
            abs(finish(some, list(capacity), loop, gather).max() - exact)
            <= some.num_flows * window + 1e-9 * exact
        )


@given(problems(timed=False, dead=False, by_bytes=True))
def test_gathering_costs_a_lone_collective_nothing(problem: tuple[Flows, np.ndarray]) -> None:
    """Shares by bytes, one start: no completion frees what holds another flow back."""
    some, capacity = problem
    for loop in LOOPS:
        gathered = finish(some, list(capacity), loop, gather=0.01)
        np.testing.assert_allclose(gathered, finish(some, list(capacity)), rtol=1e-9)
