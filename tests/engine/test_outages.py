"""Instances that become slower, stand still, die and come back while requests are served: ends by hand, laws that hold anyway."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine.serving import serve
from sim.engine.serving_faults import pass_s
from sim.engine.serving_lives import ServingTrace
from sim.errors import InfeasibleError
from sim.runs.service_faults import empty_from_s
from sim.schedule.flows import Columns, Flows
from sim.schedule.serving import ROUTINGS, EnginePolicy, KvLinks, Pool, Service, Spell
from sim.workload.requests import Lengths, Requests, poisson

STILL = 1e18


def prefill_s(work: Any, pace: float = 1.0) -> float:
    return (1e-3 * work.busiest_tokens + (1e-2 if work.requests.any() else 0.0)) * pace


def spell(from_s: float, pace: float = 1.0, down: bool = False) -> Spell:
    """1 ms a prompt token of the busiest rank and 10 ms a step, times a pace."""
    return Spell(from_s, lambda work: prefill_s(work, pace), lambda work: 1e-2 * pace, down)


def service(
    instances: int = 1,
    decodes: int = 0,
    prefill: dict[int, list[Spell]] | None = None,
    decode: dict[int, list[Spell]] | None = None,
    memory: float = math.inf,
    **engine: Any,
) -> Service:
    ranks = 2
    return Service(
        prefill=Pool(instances, memory * ranks, num_ranks=ranks),
        decode=Pool(decodes, memory * ranks, num_ranks=ranks) if decodes else None,
        prefill_s=prefill_s,
        decode_step_s=lambda work: 1e-2,
        kv_bytes_per_token=1.0,
        engine=EnginePolicy(**engine),
        prefill_spells=prefill or {},
        decode_spells=decode or {},
    )


def dead(from_s: float, until_s: float) -> list[Spell]:
    return [spell(0.0), spell(from_s, down=True), *([spell(until_s)] if until_s < math.inf else [])]


def asked(*rows: tuple[float, int, int]) -> Requests:
    arrival, prompt, output = (np.array(column) for column in zip(*rows, strict=True))
    return Requests(arrival.astype(float), prompt, output)


def ends(here: Service, *rows: tuple[float, int, int]) -> list[float]:
    found: list[float] = serve(here, asked(*rows)).instants["end_s"].tolist()
    return found


def test_a_pass_that_meets_a_change_does_the_rest_of_its_work_at_the_new_pace() -> None:
    """Of a prompt of 1 s half is done when its pace halves, and three quarters when it comes back."""
    slow = [spell(0.0), spell(0.5, 2.0), spell(1.0)]
    assert ends(service(prefill={0: slow}), (0.0, 1000, 1)) == pytest.approx([1.25])
    still = [spell(0.0), spell(0.5, STILL), spell(7.0)]
    assert ends(service(prefill={0: still}), (0.0, 1000, 1)) == pytest.approx([7.5])


@given(st.floats(0, 3), st.floats(0.01, 3), st.floats(1, 5))
def test_a_window_costs_no_less_than_none_and_no_more_than_always(
    since: float, lasts: float, pace: float
) -> None:
    window = [spell(0.0), spell(max(since, 1e-9), pace), spell(max(since, 1e-9) + lasts)]
    taken = pass_s(window, 0.0, lambda own: own.decode_step_s(None) * 100)  # type: ignore[arg-type]
    assert taken * (1 + 1e-12) >= 1.0
    assert taken <= pace * (1 + 1e-12)
    lost = min(lasts, max(0.0, (1.0 - since) * pace)) * (1 - 1 / pace)  # of its work, that waits
    assert taken == pytest.approx(1.0 + lost, rel=1e-6)


def test_a_fault_that_comes_after_the_end_changes_no_instant() -> None:
    rows = [(0.0, 100, 20), (0.05, 200, 40)]
    late = dead(1000.0, 2000.0)
    for decodes in (0, 1):
        healthy = serve(service(decodes=decodes), asked(*rows))
        found = serve(
            service(decodes=decodes, prefill={0: late}, decode={0: late} if decodes else {}), asked(*rows)
        )
        for name, instants in healthy.instants.items():
            assert found.instants[name].tolist() == instants.tolist()
        assert found.end_s == healthy.end_s


def test_a_prompt_on_an_instance_that_dies_begins_again_elsewhere_or_when_it_is_back() -> None:
    """A prompt of 1 s loses 0.4 s of work with its GPU; without another instance it waits for the first too."""
    fails = {0: dead(0.4, 5.0)}
    one, two = (serve(service(num, prefill=fails), asked((0.0, 1000, 1))) for num in (1, 2))
    assert two.instants["end_s"].tolist() == pytest.approx([1.4])
    assert one.instants["end_s"].tolist() == pytest.approx([6.0])
    assert one.restarts.tolist() == two.restarts.tolist() == [1]
    assert one.prefill[0].down_s == pytest.approx(4.6)
    assert two.prefill[0].down_s == pytest.approx(1.0)  # until the run ended


def test_a_request_that_decodes_computes_what_it_has_said_again_and_says_nothing_twice() -> None:
    """100 tokens of prompt are there after 0.1 s, and 10 more after 0.2 s; then it dies. 110 tokens again, and 11 to go."""
    found = serve(service(2, prefill={0: dead(0.2001, 9.0)}), asked((0.0, 100, 22)))
    assert found.instants["end_s"][0] == pytest.approx(0.2001 + 0.110 + 11 * 0.01)
    assert found.instants["first_token_s"][0] == pytest.approx(0.1)
    (again,) = found.prefill[1].prompt_tokens[found.prefill[1].prefills].tolist()
    assert again == 110


def test_kv_on_its_way_is_lost_with_its_sender_and_sent_elsewhere_without_its_receiver() -> None:
    """100 tokens come after 0.1 s and take 1 s to move, at 100 bytes a second."""
    links = KvLinks([100.0] * 4, flows, [[0], [1]], [[2], [3]])
    for fails, end in (
        ({"prefill": {0: dead(0.6, 9.0)}}, 0.7 + 1.01),
        ({"decode": {0: dead(0.6, 9.0)}}, 0.6 + 1.01),
    ):
        here = service(2, 2, **fails)  # type: ignore[arg-type]
        object.__setattr__(here, "kv_links", links)
        found = serve(here, asked((0.0, 100, 2)))
        assert found.instants["end_s"].tolist() == pytest.approx([end])
        assert found.restarts.tolist() == [int("prefill" in fails)]


def flows(sender: int, receiver: int) -> Flows:
    """Every rank of an instance sends and receives over its one link."""
    none, pairs = np.zeros(0, dtype=np.int64), 4
    columns = Columns(pairs)
    for link in (sender, 2 + receiver):
        columns.add(np.full(pairs, link), 1.0, 1.0)
    return columns.pack(
        np.ones(pairs), share=np.ones(pairs), latency_s=np.zeros(pairs), party_flow=none, party_rank=none
    )


def test_kv_goes_on_at_the_rate_of_a_link_that_becomes_slower_and_waits_for_a_dead_one() -> None:
    """Half of 100 bytes have come when the link halves; or nothing moves from then on until it is back after 2 s."""
    for rate, end in ((50.0, 0.1 + 0.5 + 1.0 + 0.01), (0.0, 2.6 + 0.5 + 0.01)):
        changes = ((0.6, [rate, 100.0, 100.0, 100.0]), (2.6, [100.0] * 4))
        here = service(1, 1)
        object.__setattr__(here, "kv_links", KvLinks([100.0] * 4, flows, [[0]], [[2]], changes))
        assert ends(here, (0.0, 100, 2)) == pytest.approx([end])


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (service(1, prefill={0: dead(0.4, math.inf)}), "1 requests never end"),
        (service(1, 1, decode={0: dead(0.05, math.inf)}), "1 requests never end"),
        (service(1, prefill={0: [spell(0.0), spell(0.4, STILL)]}), "dead from 0.4 s on"),
    ],
)
def test_who_waits_for_what_never_comes_back_is_infeasible(here: Service, words: str) -> None:
    with pytest.raises(InfeasibleError, match=words):
        serve(here, asked((0.0, 1000, 2)))


def test_the_queue_of_a_dead_instance_drains_as_a_fluid_does() -> None:
    """100 prompts a second each; 150 come. One is down for 10 s: (150 - 100) x 10 wait, and 200 - 150 a second drain them."""
    rows = [(i / 150, 10, 1) for i in range(4500)]
    here = service(2, prefill={1: dead(5.0, 15.0)}, batch_requests=1)
    trace = serve(here, asked(*rows))
    waits = trace.instants["prefill_start_s"] - trace.instants["arrival_s"]
    # Who comes at 5 + 20 / 3 s finds 333 before him, whom one instance has just served when the other is back.
    assert waits.max() == pytest.approx(10 / 3, rel=0.02)
    assert waits[round(150 * 14.99)] == pytest.approx(500 / 200, rel=0.02)
    assert empty_from_s(trace, 15.0) == pytest.approx(15.0 + 500 / (200 - 150), rel=0.02)


@given(
    st.integers(0, 10**6),
    st.sampled_from([None, *ROUTINGS]),
    st.sampled_from(["none", "recompute", "swap"]),
    st.integers(0, 2),
    st.booleans(),
    st.lists(st.tuples(st.booleans(), st.integers(0, 1), st.floats(0.01, 3), st.floats(0.1, 2)), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_whatever_dies_all_end_with_their_tokens_within_memory_and_little_holds(
    seed: int,
    routing: str | None,
    preemption: str,
    decodes: int,
    mixed: bool,
    failures: list[tuple[bool, int, float, float]],
) -> None:
    rng = np.random.default_rng(seed)
    rows = poisson(40, 20.0, Lengths("lognormal", 60, 1.0, 200), Lengths("lognormal", 12, 1.0, 40), rng)
    of_prefill = {
        i: dead(since, since + lasts) for first, i, since, lasts in failures if first or not decodes
    }
    of_decode = {
        i: dead(since, since + lasts) for first, i, since, lasts in failures if not first and i < decodes
    }
    here = service(
        2, decodes, of_prefill, of_decode, memory=500.0, routing=routing, preemption=preemption, mixed=mixed and not decodes,
        chunk_tokens=100, max_requests=8,
    )  # fmt: skip
    found = serve(here, rows)
    assert not found.refused.any()
    assert not np.isnan(found.instants["end_s"]).any()
    assert_each_token_once(found, rows)
    for instance in (*found.prefill, *found.decode):
        assert instance.peak_kv_tokens <= instance.kv_capacity_tokens
    assert_little(found)


def assert_each_token_once(found: ServingTrace, rows: Requests) -> None:
    """Steps times the requests in them are the tokens beyond the first; prompts are computed once, and again after each restart."""
    steps = sum(int(instance.requests.sum()) for instance in found.decode)
    assert steps == int((rows.output_tokens - 1).sum())
    pools = {id(instance): instance for instance in (*found.prefill, *found.decode)}.values()
    computed = sum(int(instance.prompt_tokens.sum()) for instance in pools)
    assert computed >= int(rows.prompt_tokens.sum())
    if not found.restarts.any() and not found.preemptions:
        assert computed == int(rows.prompt_tokens.sum())


def assert_little(found: ServingTrace) -> None:
    """The mean number in the house is the rate of arrivals times the mean time in it."""
    came, left = found.instants["arrival_s"], found.instants["end_s"]
    span = left.max() - came.min()
    events = np.sort(np.concatenate([came, left]))
    there = [((came <= at) & (left > at)).sum() for at in events[:-1]]
    assert float(np.dot(there, np.diff(events))) / span == pytest.approx(
        len(came) / span * (left - came).mean()
    )
