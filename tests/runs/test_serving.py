"""The serving loop agrees with queueing theory, loses nobody, keeps to its memory, and repeats itself to the last digit."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import shared
from faults import slow_nic
from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Fabric, Fault, build
from sim.engine import fluid
from sim.engine.serving import serve
from sim.engine.serving_lives import ServingTrace
from sim.engine.transfers import Transfers
from sim.errors import InfeasibleError, InputError
from sim.runs import run
from sim.runs.service import kv_links, places, service_of
from sim.runs.service_faults import at_fault, instance_faults
from sim.runs.serving import Remaining
from sim.runs.serving_metrics import measure
from sim.scenario import settings as scenario_settings
from sim.scenario.resolve import resolve
from sim.scenario.serving import Serving
from sim.schedule.collectives import HEADERS
from sim.schedule.flows import Columns, Flows
from sim.schedule.serving import (
    POLICIES,
    EnginePolicy,
    KvLinks,
    PassWork,
    Pool,
    Service,
    Waiting,
    WaitingLine,
)
from sim.workload.request_classes import DrawnClass, poisson_classes
from sim.workload.requests import Lengths, Requests, poisson

Floats = NDArray[np.float64]
ONE = Lengths("fixed", 1)


def requests(rows: list[tuple[float, int, int]]) -> Requests:
    arrival, prompt, output = zip(*rows, strict=True)
    return Requests(np.array(arrival, dtype=float), np.array(prompt), np.array(output))


def service(**changes: object) -> Service:
    """1 ms a prompt token of the busiest rank, 10 ms a decode step, one byte of KV a token, no limit."""
    plain = Service(
        prefill=Pool(1, math.inf),
        decode=Pool(1, math.inf),
        prefill_s=lambda work: 1e-3 * work.busiest_tokens,
        decode_step_s=lambda work: 1e-2,
        kv_bytes_per_token=1.0,
    )
    of_engine = {key: changes.pop(key) for key in [*changes] if key in EnginePolicy.__dataclass_fields__}
    return replace(plain, engine=EnginePolicy(**of_engine), **changes)  # type: ignore[arg-type]


# --- queueing theory -----------------------------------------------------------------------------------------------


def erlang_c(servers: int, load: float) -> float:
    """Chance to wait in M/M/c; `load` = arrival rate / service rate (Erlang 1917)."""
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


NUM_SEEDS, STUDENT = 8, 3.0  # two-sided 98 % of Student's t with 7 degrees of freedom


def waits_of_seeds(
    here: Service, draw: Callable[[np.random.Generator], Requests], first: str, then: str
) -> list[float]:
    """Mean of `then` - `first` over the requests of each seed, the first tenth (an empty house) left out [s]."""
    means = []
    for seed in range(NUM_SEEDS):
        asked = draw(np.random.default_rng([seed, 1]))
        found = serve(here, asked).instants
        means.append(float((found[then] - found[first])[asked.num_requests // 10 :].mean()))
    return means


def assert_agrees(means: list[float], theory: float, most_error_fraction: float) -> None:
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means))
    assert abs(np.mean(means) - theory) <= STUDENT * error
    assert error <= most_error_fraction * theory  # or the test could not fail


@pytest.mark.parametrize(
    ("servers", "fraction"),
    [(1, 0.5), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(1, 0.7), (2, 0.7), (4, 0.8)])],
)
def test_prefill_without_batches_waits_as_long_as_m_m_c(servers: int, fraction: float) -> None:
    def draw(rng: np.random.Generator) -> Requests:
        return poisson(8000, servers * fraction, Lengths("exponential", 100_000), ONE, rng)

    here = service(
        prefill=Pool(servers, math.inf), prefill_s=lambda work: work.busiest_tokens / 1e5, batch_requests=1
    )
    theory = erlang_c(servers, servers * fraction) / (servers * (1 - fraction))
    assert_agrees(waits_of_seeds(here, draw, "arrival_s", "prefill_start_s"), theory, 0.08)


def one_at_a_time(policy: str = "fcfs") -> Service:
    """A server that prefills 1e5 tokens a second, one prompt after the other."""
    return service(prefill_s=lambda work: work.busiest_tokens / 1e5, batch_requests=1, policy=policy)


def test_prompts_of_one_length_wait_as_long_as_m_d_1() -> None:
    """Half of what exponential ones do: rho s / (2 (1 - rho)) (Pollaczek 1930, Khinchine 1932)."""

    def draw(rng: np.random.Generator) -> Requests:
        return poisson(6000, 0.6, Lengths("fixed", 100_000), ONE, rng)

    assert_agrees(
        waits_of_seeds(one_at_a_time(), draw, "arrival_s", "prefill_start_s"), 0.6 / (2 * 0.4), 0.08
    )


SHORT_S, LONG_S, SHARE, RATE = 0.5, 3.0, 0.8, 0.7
TWO = {
    "short": DrawnClass(SHARE, Lengths("fixed", 50_000), ONE),
    "long": DrawnClass(1 - SHARE, Lengths("fixed", 300_000), ONE),
}
MEETS_S = RATE * (SHARE * SHORT_S**2 + (1 - SHARE) * LONG_S**2) / 2
"""Work that an arrival finds in service."""
BUSY_SHORT, BUSY = RATE * SHARE * SHORT_S, RATE * (SHARE * SHORT_S + (1 - SHARE) * LONG_S)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "theory"),
    [
        ("fcfs", dict.fromkeys(TWO, MEETS_S / (1 - BUSY))),
        (
            "shortest_first",
            {"short": MEETS_S / (1 - BUSY_SHORT), "long": MEETS_S / (1 - BUSY_SHORT) / (1 - BUSY)},
        ),
    ],
)
def test_two_classes_wait_as_long_as_in_m_g_1_with_or_without_priority(
    policy: str, theory: dict[str, float]
) -> None:
    """In order both wait alike (Pollaczek, Khinchine); shortest first is priority that interrupts nobody (Cobham 1954)."""
    waits: dict[str, list[float]] = {name: [] for name in TWO}
    here = one_at_a_time(policy)
    for seed in range(NUM_SEEDS):
        asked = poisson_classes(8000, RATE, TWO, np.random.default_rng([seed, 4]))
        found = measure(here, asked, serve(here, asked), 1)["classes"]
        for name, own in waits.items():
            own.append(found[name]["prefill_wait"]["mean_s"])
    for name, own in waits.items():
        assert_agrees(own, theory[name], 0.08)


@pytest.mark.slow
@pytest.mark.parametrize(("servers", "fraction"), [(1, 0.6), (3, 0.7)])
def test_decode_of_one_request_at_a_time_waits_as_long_as_m_m_c(servers: int, fraction: float) -> None:
    """A geometric count of steps: 1 / p in the mean, squared variation 1 - p, which scales the wait by 1 - p / 2."""
    p = 0.05
    mean_s = 1e-2 / p

    def draw(rng: np.random.Generator) -> Requests:
        drawn = poisson(2000, servers * fraction / mean_s, ONE, ONE, rng)
        return replace(drawn, output_tokens=1 + rng.geometric(p, 2000))

    here = service(prefill_s=lambda work: 0.0, decode=Pool(servers, math.inf), max_requests=1)
    theory = erlang_c(servers, servers * fraction) / (servers * (1 - fraction)) * mean_s * (1 - p / 2)
    assert_agrees(waits_of_seeds(here, draw, "first_token_s", "decode_start_s"), theory, 0.2)


def closed(num: int, users: int, prompt: Lengths, output: Lengths, seed: int = 0) -> Requests:
    drawn = poisson(num, 1.0, prompt, output, np.random.default_rng([seed, 2]))
    return replace(drawn, arrival_s=np.zeros(num), concurrency=users)


def test_users_of_a_closed_loop_ask_again_the_instant_that_an_answer_has_ended() -> None:
    """So the mean response is users over throughput, but for the last who drain (Little)."""
    asked = closed(600, 5, Lengths("exponential", 50), Lengths("exponential", 20))
    found = serve(service(), asked).instants
    assert (found["arrival_s"][:5] == 0).all()
    np.testing.assert_array_equal(found["arrival_s"][5:], np.sort(found["end_s"])[:-5])
    until = found["arrival_s"][-1]
    inside = np.clip(found["end_s"], 0, until) - np.clip(found["arrival_s"], 0, until)
    assert inside.sum() / until == pytest.approx(5)


@pytest.mark.slow
@pytest.mark.parametrize("users", [1, 3])
def test_two_exponential_stations_in_a_closed_loop_yield_n_over_n_plus_one(users: int) -> None:
    """Balanced stations of one server: throughput = N / (N + 1) of a server's rate (Gordon and Newell, 1967)."""
    steps, each_s = 30, 1e-2  # both stations take 0.3 s on average
    here = service(
        prefill_s=lambda work: work.busiest_tokens / 100_000 * steps * each_s,
        batch_requests=1,
        decode=Pool(1, math.inf),
        max_requests=1,
    )
    rates = []
    for seed in range(NUM_SEEDS):
        asked = closed(3000, users, Lengths("exponential", 100_000), ONE, 100 + seed)
        lasts = np.random.default_rng([seed, 3]).geometric(1 / steps, 3000)
        found = serve(here, replace(asked, output_tokens=1 + lasts)).instants
        rates.append(3000 * steps * each_s / float(found["end_s"].max()))
    assert_agrees(rates, users / (users + 1), 0.02)


def test_decode_with_room_for_all_is_m_g_infinity() -> None:
    asked = poisson(5000, 10.0, ONE, Lengths("exponential", 100), np.random.default_rng(0))
    found = serve(service(prefill_s=lambda work: 0.0), asked)
    steps = found.decode[0]
    busy = np.sum(steps.requests * (steps.end_s - steps.start_s)) / asked.arrival_s[-1]
    assert busy == pytest.approx(10.0 * 0.99, rel=0.05)  # Little: rate x 99 steps of 10 ms


# --- one request, by hand ------------------------------------------------------------------------------------------


def test_the_instants_of_one_request_are_sums_of_its_parts() -> None:
    here = service(prefill=Pool(1, math.inf), kv_links=linked([1e3], [1e3]), transfer_latency_s=0.25)
    found = {name: values[0] for name, values in serve(here, requests([(1.0, 100, 11)])).instants.items()}
    assert found == pytest.approx(
        {
            "arrival_s": 1.0,
            "prefill_start_s": 1.0,
            "first_token_s": 1.1,  # 100 tokens of 1 ms
            "decode_admitted_s": 1.1,
            "kv_arrived_s": 1.45,  # 100 bytes at 1,000 bytes/s, and the latency
            "decode_start_s": 1.45,
            "end_s": 1.55,  # ten steps of 10 ms after the first token
        }
    )


def test_speculation_takes_fewer_steps_and_one_token_needs_no_decode() -> None:
    found = serve(service(acceptance=(1.0,)), requests([(0.0, 1, 18), (0.0, 1, 1)]))
    assert found.decode[0].steps.sum() == 9  # 17 tokens, two a step
    assert found.instants["end_s"][1] == found.instants["first_token_s"][1]
    assert found.decode_instance.tolist() == [0, -1]


def test_a_long_prompt_goes_in_chunks_and_a_cached_part_is_not_computed() -> None:
    seen: list[tuple[int, int]] = []

    def cost(work: PassWork) -> float:
        seen.extend(work.chunks[0])
        return 1.0 + 1e-3 * work.busiest_tokens

    found = serve(service(prefill_s=cost, chunk_tokens=100, cached_fraction=0.5), requests([(0.0, 500, 1)]))
    assert found.instants["end_s"][0] == pytest.approx(3 * 1.0 + 0.25)
    assert seen == [(100, 250), (100, 350), (50, 450)]  # each attends to all that came before it


def test_prompts_spread_over_the_ranks_of_an_instance_and_the_longest_sets_the_time() -> None:
    here = service(prefill=Pool(1, math.inf, num_ranks=4))
    found = serve(here, requests([(0.0, 50, 1), (0.06, 100, 1), (0.06, 40, 1), (0.06, 40, 1)]))
    assert found.instants["first_token_s"] == pytest.approx([0.05, 0.16, 0.16, 0.16])


def test_a_short_prompt_does_not_wait_for_the_end_of_a_long_one() -> None:
    """On another rank it takes one pass; on the same one it shares the last pass of the long one."""
    rows = requests([(0.0, 1000, 1), (0.0, 30, 1)])
    beside = serve(service(prefill=Pool(1, math.inf, num_ranks=2), chunk_tokens=100), rows)
    assert beside.instants["first_token_s"] == pytest.approx([1.0, 0.1])
    behind = serve(service(chunk_tokens=100), requests([(0.0, 950, 1), (0.0, 30, 1)]))
    assert behind.instants["first_token_s"] == pytest.approx([0.98, 0.98])
    shortest = serve(service(chunk_tokens=100, policy="shortest_first"), rows)
    assert shortest.instants["first_token_s"] == pytest.approx([1.03, 0.1])


def test_one_pool_that_does_both_holds_decode_up_for_a_prefill() -> None:
    found = serve(service(decode=None), requests([(0.0, 10, 21), (0.055, 1000, 2)])).instants
    assert found["prefill_start_s"][1] == pytest.approx(0.06)  # at the end of a step
    assert found["end_s"][0] == pytest.approx(0.01 + 0.2 + 1.0)


def test_a_full_decode_instance_keeps_kv_on_prefill_and_holds_up_its_queue() -> None:
    here = service(prefill=Pool(1, 100.0), decode=Pool(1, 160.0))
    found = serve(here, requests([(0.0, 100, 50)] * 3)).instants
    assert found["decode_admitted_s"][1] == pytest.approx(found["end_s"][0])
    assert found["prefill_start_s"][2] == pytest.approx(found["kv_arrived_s"][1])


def test_a_request_that_fits_no_rank_is_refused_and_holds_up_nobody() -> None:
    here = service(prefill=Pool(1, 100.0, num_ranks=2), decode=Pool(1, 1000.0))
    found = serve(here, requests([(0.0, 51, 2), (0.0, 50, 2)]))
    assert found.refused.tolist() == [True, False]
    assert math.isnan(found.instants["prefill_start_s"][0])
    assert not math.isnan(found.instants["end_s"][1])


def test_a_run_that_is_cut_leaves_what_still_runs_without_an_end() -> None:
    found = serve(service(), requests([(0.0, 100, 1000), (9.0, 1, 1)]), until_s=5.0)
    assert np.isnan(found.instants["end_s"]).all()
    assert found.instants["first_token_s"][0] == pytest.approx(0.1)
    assert found.end_s == 5.0


# --- KV on its way -------------------------------------------------------------------------------------------------


def linked(send: list[float], receive: list[float]) -> KvLinks:
    """Instances of one GPU, each with a link of its own."""

    def flows(i: int, j: int) -> Flows:
        columns = Columns(1)
        for link in (i, len(send) + j):
            columns.add(np.array([link]), 1.0, 1.0)
        return packed(columns, np.ones(1), np.zeros(1))

    ends = [[[i] for i in range(len(send))], [[len(send) + j] for j in range(len(receive))]]
    return KvLinks([*send, *receive], flows, *ends)


def packed(columns: Columns, payload: Floats, release: Floats) -> Flows:
    num, none = len(payload), np.zeros(0, dtype=np.int64)
    return columns.pack(
        payload,
        share=np.ones(num),
        latency_s=np.zeros(num),
        party_flow=none,
        party_rank=none,
        release_s=release,
    )


def test_two_transfers_into_one_instance_each_get_half() -> None:
    pools = {"prefill": Pool(2, math.inf), "kv_links": linked([1e3, 1e3], [1e3])}
    found = serve(service(**pools, batch_requests=1), requests([(0.0, 100, 2), (0.0, 100, 2)])).instants
    assert found["kv_arrived_s"] - found["first_token_s"] == pytest.approx([0.2, 0.2])


def test_a_transfer_gets_what_the_exchanges_of_a_running_instance_leave() -> None:
    pool = Pool(1, math.inf, nic_busy_fraction=0.75)
    here = service(decode=pool, prefill_s=lambda work: 0.0, kv_links=linked([1e9], [1e3]))
    found = serve(here, requests([(0.0, 10, 1001), (5.0, 100, 2)])).instants
    assert found["kv_arrived_s"][0] == pytest.approx(0.01)  # nothing runs yet
    assert found["kv_arrived_s"][1] - 5.0 == pytest.approx(0.4)


LINKS = 4
SENT = st.tuples(
    st.integers(0, 8),  # start
    st.integers(1, 50),  # bytes
    st.dictionaries(st.integers(0, LINKS - 1), st.sampled_from([0.5, 1.0, 2.0]), min_size=1),  # lines
)


@given(st.lists(SENT, min_size=1, max_size=10), st.lists(st.integers(1, 20), min_size=LINKS, max_size=LINKS))
@settings(max_examples=60, deadline=None)
def test_transfers_that_come_one_by_one_end_as_when_all_are_known(
    sent: list[tuple[int, int, dict[int, float]]], capacity: list[int]
) -> None:
    """The fluid solver, which has all flows from the start, is the oracle."""
    env = simpy.Environment()
    here = Transfers(env, [float(rate) for rate in capacity])
    ended = np.zeros(len(sent))

    def one(number: int, start: int, size: int, lines: dict[int, float]):  # type: ignore[no-untyped-def]
        yield env.timeout(start / 4)
        yield here.send(float(size), list(lines), list(lines.values()), 0.0)
        ended[number] = env.now

    for number, row in enumerate(sent):
        env.process(one(number, *row))
    env.run()
    columns = Columns(len(sent))
    for link in range(LINKS):
        line = np.array([lines.get(link, 0.0) for _, _, lines in sent])
        columns.add(np.full(len(sent), link), line, line)
    starts, sizes = (np.array([row[i] for row in sent], dtype=float) for i in (0, 1))
    flows = packed(columns, sizes, starts / 4)
    assert ended == pytest.approx(fluid.drained(flows, np.array(capacity, dtype=float)), rel=1e-9)


# --- KV on a cluster: nodes 0 and 1 prefill, nodes 2 and 3 decode -----------------------------------------------------

NIC = 50e9 * load_kernel("nccl").nic_efficiency_fraction
KV = 1e9  # of a request


def moved_s(num: int, fabric: Fabric | None = None, faults: tuple[Fault, ...] = (), each: int = 2) -> Floats:
    """Times in which the KV of requests moves whose prefills end together, in turn on `each` instances and their GPUs."""
    cluster = build(load_hardware("h800"), 4, fabric or Fabric(), faults)
    nodes = np.arange(32).reshape(4, 8)
    here = service(
        prefill=Pool(each, math.inf, num_ranks=8),
        decode=Pool(each, math.inf, num_ranks=8),
        kv_bytes_per_token=KV,
        batch_requests=num // each,
        max_requests=100,
        kv_links=kv_links(cluster, nodes[:2], nodes[2:]),
    )
    trace = serve(here, requests([(0.0, 1, 2)] * num))
    assert sum(float(parts.sum()) for parts in trace.kv_bytes.values()) == num * KV
    found: Floats = trace.instants["kv_arrived_s"] - trace.instants["decode_admitted_s"]
    return found


def test_kv_takes_a_nic_where_nothing_holds_it_up() -> None:
    assert moved_s(16) == pytest.approx([KV / NIC] * 16, rel=1e-3)


@pytest.mark.parametrize("ratio", [4, 20])
def test_kv_that_leaves_a_leaf_shares_its_uplinks(ratio: int) -> None:
    """Two nodes a leaf: two transfers of a rail have 2/ratio of a NIC together, less headers."""
    fabric = Fabric(nodes_per_leaf=2, oversubscription=ratio)
    assert moved_s(16, fabric) == pytest.approx([KV * HEADERS * ratio / 50e9] * 16, rel=1e-3)
    assert moved_s(2, fabric) == pytest.approx([KV * HEADERS * ratio / 50e9] * 2, rel=1e-3)


def test_a_slow_nic_holds_up_the_kv_of_its_gpu_alone() -> None:
    times = moved_s(16, faults=(slow_nic(3, 30e9, node=0),))
    assert sorted(times)[-1] == pytest.approx(KV / NIC * 50 / 30, rel=1e-3)
    assert sorted(times)[:-1] == pytest.approx([KV / NIC] * 15, rel=1e-3)


def test_the_next_rail_carries_the_kv_of_a_dead_one_with_its_own() -> None:
    times = moved_s(8, faults=(slow_nic(2, 0.0),), each=1)
    assert sorted(times) == pytest.approx([KV / NIC] * 6 + [2 * KV / NIC] * 2, rel=1e-3)


def test_an_instance_has_the_faults_of_its_own_nodes() -> None:
    faults = "[{node: 6, nic: 1, bandwidth: 25 %}, {node: 7, clock: 50 %}, {rail: 2, bandwidth: 50 %}]"
    document = scenario_settings.read("serving-example", [f"cluster.faults={faults}"])
    scenario = resolve(scenario_settings.variants(document)["apart"])
    work = scenario.workload
    assert isinstance(work, Serving)
    (prefill,), (decode,) = places(scenario, work)
    assert (prefill[0], decode[0], len(decode)) == (0, 32, 32)
    rail = Fault("bandwidth", 0.5, rail=2)
    assert work.prefill.faults == work.decode.faults == (rail,)
    assert instance_faults(scenario, work.prefill, prefill) == (rail,)
    assert set(instance_faults(scenario, work.decode, decode)) == {
        rail,
        Fault("bandwidth", 0.25, node=2, nic=1),
        Fault("clock", 0.5, node=3),
    }


def test_instances_on_part_of_a_cluster_have_the_faults_of_the_nodes_in_use() -> None:
    """The first decode instance stands for both, and node 11 idles."""
    nodes = [12, *range(10, -1, -1)]
    faults = f"[{{node: {nodes[9]}, clock: 50 %}}, {{node: 11, clock: 50 %}}]"
    changes = [f"cluster={{hardware: h800, nodes: 13, use_nodes: {nodes}, faults: {faults}}}"]
    document = scenario_settings.read("serving-example", [*changes, "workload.decode.instances=2"])
    scenario = resolve(scenario_settings.variants(document)["apart"])
    work = scenario.workload
    assert isinstance(work, Serving)
    (prefill,), decodes = places(scenario, work)
    assert [gpus[0] // 8 for gpus in (prefill, *decodes)] == [nodes[0], nodes[4], nodes[8]]
    assert instance_faults(scenario, work.prefill, prefill) == ()
    assert instance_faults(scenario, work.decode, decodes[0]) == ()
    second = instance_faults(scenario, work.decode, decodes[1])
    assert second == (Fault("clock", 0.5, node=nodes[5]),)
    assert at_fault(work.decode, second).slowness().tolist() == [1.0] * 8 + [2.0] * 8 + [1.0] * 16


@pytest.mark.slow
def test_a_slow_gpu_makes_its_instance_alone_decode_as_slowly_as_that_gpu() -> None:
    """Of two decode instances; the other one and prefill keep their times."""
    small = [
        "cluster.nodes=6",
        "workload.prefill.ep=16",
        "workload.decode.ep=16",
        "workload.decode.instances=2",
    ]
    small += [
        f"workload.{pool}.plan.placement={{kind: contiguous, redundant_experts: 0}}"
        for pool in ("prefill", "decode")
    ]
    small += ["model=deepseek-v2", "workload.decode.plan.tokens_per_step=1"]
    costs = []
    for faults in ("[]", "[{node: 5, clock: 50 %}]"):
        document = scenario_settings.read("serving-example", [*small, f"cluster.faults={faults}"])
        costs.append(service_of(resolve(scenario_settings.variants(document)["apart"]), lambda _: None))
    healthy, slow = costs
    step = PassWork({}, np.full(16, 16), np.full(16, 32_000.0))
    prompts = PassWork({0: [(4096, 0)]}, np.zeros(16, dtype=np.int64), np.zeros(16))
    assert slow.prefill_s(prompts) == healthy.prefill_s(prompts)
    assert slow.decode_step_s(step) == healthy.decode_step_s(step)
    assert not healthy.decode_spells
    assert [*slow.decode_spells] == [1]
    (spell,) = slow.decode_spells[1]
    assert 1.5 < spell.decode_step_s(step) / healthy.decode_step_s(step) <= 2.0


# --- policies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "taken"), [("fcfs", [0]), ("first_fit", [0, 2, 3]), ("shortest_first", [2, 3, 0])]
)
def test_policies_differ_in_who_passes_whom(policy: str, taken: list[int]) -> None:
    """Of 30, 80, 10 and 20 tokens, with room for 60."""
    queue, room = WaitingLine(policy), [60]
    for request, tokens in enumerate((30, 80, 10, 20)):
        queue.push(Waiting(tokens, request, request))

    def fits(waiting: Waiting) -> bool:
        return waiting.tokens <= room[0]

    for place, waiting in enumerate(queue.take(fits)):
        room[0] -= waiting.tokens
        assert waiting.request == taken[place]
    assert len(queue) == 4 - len(taken)
    assert not queue.has(fits)


def test_a_request_that_was_put_out_is_first_in_line() -> None:
    queue = WaitingLine("fcfs")
    queue.push(Waiting(5, 0, 0))
    queue.push(Waiting(9, 1, 1), first=True)
    assert [waiting.request for waiting in queue.take(lambda _: True)] == [1, 0]


# --- properties of whole runs --------------------------------------------------------------------------------------

ROWS = st.lists(
    st.tuples(st.floats(0, 0.3), st.integers(1, 60), st.integers(1, 12)), min_size=1, max_size=25
).map(lambda rows: requests(sorted(rows)))


@given(
    ROWS,
    st.integers(1, 3),
    st.integers(0, 2),
    st.sampled_from(sorted(POLICIES)),
    st.integers(60, 200),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_whatever_arrives_ends_in_order_within_memory(
    asked: Requests, prefill: int, decode: int, policy: str, memory: int, batch: int
) -> None:
    here = service(
        prefill=Pool(prefill, memory, 0.5),
        decode=Pool(decode, memory, 0.5) if decode else None,
        kv_links=linked([5e3] * prefill, [5e3] * decode) if decode else None,
        chunk_tokens=64,
        max_requests=batch,
        policy=policy,
        acceptance=(0.5,),
    )
    found = serve(here, asked)
    at = found.instants
    too_big = asked.prompt_tokens + (asked.output_tokens if not decode else 0) > memory
    too_big |= (asked.output_tokens > 1) & (asked.prompt_tokens + asked.output_tokens > memory)
    np.testing.assert_array_equal(found.refused, too_big)
    np.testing.assert_array_equal(np.isnan(at["end_s"]), too_big)
    kept = ~too_big
    alone = np.array([here.alone_s(int(tokens)) for tokens in asked.prompt_tokens])
    assert (at["first_token_s"] - at["arrival_s"] >= alone - 1e-9)[kept].all()
    decoded = kept & (asked.output_tokens > 1)
    chain = [at[name][decoded] for name in at]
    assert all((first <= second).all() for first, second in pairwise(chain))
    assert ((at["end_s"] - at["decode_start_s"] - 1e-2 * found.steps)[decoded] >= -1e-9).all()
    if policy == "fcfs":
        assert (np.diff(at["prefill_start_s"][kept]) >= 0).all()
    for one in found.prefill + found.decode:
        assert one.peak_kv_tokens <= one.kv_capacity_tokens
        assert (one.requests <= batch).all()
    assert_no_instance_holds_more_than_its_memory(found, asked, memory, apart=decode > 0)


def assert_no_instance_holds_more_than_its_memory(
    found: ServingTrace, asked: Requests, memory: int, *, apart: bool
) -> None:
    """From the instants alone: KV is held from admission to the end; frees of an instant come before takes."""
    at, whole = found.instants, asked.prompt_tokens + asked.output_tokens
    placed = found.decode_instance if apart else found.prefill_instance
    start = at["decode_admitted_s"] if apart else at["prefill_start_s"]
    for instance in range(len(found.decode)):
        mine = np.flatnonzero((placed == instance) & ~np.isnan(at["end_s"]))
        events = sorted(
            [(start[r], 1, whole[r]) for r in mine] + [(at["end_s"][r], 0, -whole[r]) for r in mine]
        )
        held = 0
        for _, _, change in events:
            held += change
            assert held <= memory


def test_the_same_run_gives_the_same_instants_under_every_hash_seed() -> None:
    code = """
import numpy as np, hashlib
from sim.engine.serving import serve
from sim.schedule.flows import Columns
from sim.schedule.serving import EnginePolicy, KvLinks, Pool, Service
from sim.workload.requests import Lengths, poisson
def flows(i, j):
    columns, one = Columns(1), np.ones(1)
    for link in (i, 3 + j, 5):
        columns.add(np.array([link]), 1.0, 1.0)
    none = np.zeros(0, dtype=np.int64)
    return columns.pack(one, share=one, latency_s=0 * one, party_flow=none, party_rank=none)
links = KvLinks([5e4] * 5 + [7e4], flows, [[0], [1], [2]], [[3], [4]])
engine = EnginePolicy(chunk_tokens=2000, max_requests=32, block_tokens=16, preemption="recompute")
here = Service(Pool(3, 4e4, .3), Pool(2, 5e4, .3), lambda w: 1e-5 * w.busiest_tokens,
               lambda w: 5e-3 + 1e-4 * w.requests.max(), 1.0, engine, (0.7,), kv_links=links, transfer_latency_s=1e-3)
asked = poisson(400, 30.0, Lengths("lognormal", 500, 1.0, 4000), Lengths("exponential", 50), np.random.default_rng(7))
found = serve(here, asked).instants
print(hashlib.sha256(b"".join(found[name].tobytes() for name in found)).hexdigest())
"""
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(seen) == 1


# --- metrics -------------------------------------------------------------------------------------------------------


def test_metrics_are_differences_of_instants() -> None:
    here = service(prefill=Pool(1, 1e4), decode=Pool(1, 1e4), batch_requests=1)
    asked = requests([(0.0, 100, 11), (0.05, 100, 1)])
    found = measure(here, asked, serve(here, asked), 2, ttft_s=0.12, tpot_s=0.02)
    assert found["ttft"]["mean_s"] == pytest.approx((0.1 + 0.15) / 2)
    assert found["ttft_alone"]["p99_s"] == pytest.approx(0.1)
    assert found["tpot"]["p50_s"] == pytest.approx(0.01)
    assert found["token_gap"]["max_s"] == pytest.approx(0.01)
    assert found["good_fraction"] == 0.5
    assert found["queues"]["prefill"] == pytest.approx({"mean": 0.05 / 0.2, "max": 1})
    assert found["output_tokens_per_s_per_gpu"] == pytest.approx(12 / 0.2 / 2)
    assert (found["num_ended"], found["num_refused"], found["num_unfinished"]) == (2, 0, 0)


def test_rates_while_requests_arrive_leave_the_draining_out() -> None:
    """Prompts of 100 ms at 0, 0.05 and 0.255 s, one at a time; decode goes on 0.4 s after the last."""
    here = service(prefill=Pool(1, 1e4), decode=Pool(1, 1e4), batch_requests=1)
    asked = requests([(0.0, 100, 3), (0.05, 100, 31), (0.255, 100, 31)])
    found = measure(here, asked, serve(here, asked), 2)
    span = found["while_arriving"]
    assert found["makespan_s"] == pytest.approx(0.66)  # the last joins a step at 0.36
    assert span["span_s"] == 0.255
    assert span["arrivals_per_s"] == pytest.approx(2 / 0.255)
    assert span["prefilled_per_s"] == pytest.approx(2 / 0.255)  # first tokens at 0.1 and 0.2
    assert span["requests_per_s"] == pytest.approx(1 / 0.255)  # the first ends at 0.12
    assert span["prefill_utilisation_fraction"] == pytest.approx(0.2 / 0.255)
    assert span["decode_utilisation_fraction"] == pytest.approx((0.02 + 0.055) / 0.255)
    assert span["output_tokens_per_s"] == pytest.approx(
        (2 + 2 + 5) / 0.255
    )  # two first ones, two and five more
    assert found["requests_per_s"] == pytest.approx(3 / 0.66)
    assert found["prefill_utilisation_fraction"] == pytest.approx(0.3 / 0.66)


def test_what_requests_waited_for_is_summed_by_pool() -> None:
    """The second prompt waits 50 ms; its KV lies there for the end of a step, and one of them for a place in decode."""
    here = service(prefill=Pool(1, 1e4), decode=Pool(1, 1e4), batch_requests=1, max_requests=1)
    asked = requests([(0.0, 100, 21), (0.05, 100, 2)])
    trace = serve(here, asked)
    found = measure(here, asked, trace, 2)["waited_s"]
    assert found["prefill"] == pytest.approx(0.05)
    assert found["decode"] == pytest.approx(0.1)  # from 0.2, when it could, to 0.3, when the first has ended


def test_requests_that_never_leave_a_queue_have_waited_until_the_end() -> None:
    here = service(prefill=Pool(1, 1e4), decode=Pool(1, 1e4), batch_requests=1)
    asked = requests([(0.0, 1000, 1), (0.25, 1000, 1)])
    found = measure(here, asked, serve(here, asked, until_s=0.5), 2)
    assert found["waited_s"]["prefill"] == pytest.approx(0.25)
    assert found["queues"]["decode"] == {"mean": 0.0, "max": 0}  # a first token is their last
    assert found["while_arriving"]["span_s"] == 0.25


def test_requests_that_all_come_at_once_have_no_span_of_arrivals() -> None:
    here = service()
    asked = requests([(0.0, 10, 2), (0.0, 10, 2)])
    assert measure(here, asked, serve(here, asked), 2)["while_arriving"] == {}


def test_every_request_ends_is_refused_or_is_told_unfinished() -> None:
    here = service(prefill=Pool(1, 120.0), decode=Pool(1, 200.0))
    asked = requests([(0.0, 100, 11), (0.01, 150, 1), (0.02, 99, 11), (0.03, 100, 90)])
    found = measure(here, asked, serve(here, asked, until_s=0.35), 2)
    assert [found[f"num_{what}"] for what in ("ended", "refused", "unfinished")] == [2, 1, 1]


def test_progress_knows_its_end_by_the_rate_since_it_last_spoke(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the requests took 100 s, the next 10 s: eight more such tenths are left."""
    clock, said = iter([100.0, 104.0, 110.0]), list[str]()
    monkeypatch.setattr("sim.runs.serving.time.monotonic", lambda: next(clock))
    left = Remaining("mine", said.append, said_s=0.0)
    for ended in (4096, 6000, 8192):
        left(ended, 40_960)
    assert said == [
        "mine: 4,096 of 40,960 requests have ended, about 900 s left",
        "mine: 8,192 of 40,960 requests have ended, about 80 s left",
    ]


# --- scenarios -----------------------------------------------------------------------------------------------------


def example() -> Any:
    return shared.scenario("serving-example")


@pytest.mark.slow
def test_the_example_ends_every_request_and_no_ttft_is_below_that_of_an_empty_house() -> None:
    for one in example()["variants"].values():
        found = one["metrics"]
        assert found["num_ended"] == 400
        for key in ("mean_s", "p50_s", "p99_s"):
            assert found["ttft"][key] >= found["ttft_alone"][key]


@pytest.mark.slow
def test_the_example_says_that_apart_waits_for_prefill_and_together_for_decode() -> None:
    """Prefill of one instance cannot keep up with 42 prompts a second; two that also decode put prompts first."""
    said = " ".join(example().finding())
    assert re.search(r"most for prefill, [^;.]*each in apart", said)
    assert re.search(r"most for decode, [0-9.]+ s each in together", said)


def kv_bytes(result: Any) -> float:
    """62 layers with the one that speculates, 512 + 64 values of two bytes each; a prompt answered by its first token stays."""
    asked = result["requests"]
    pairs = zip(asked["prompt_tokens"], asked["output_tokens"], strict=True)
    return sum(prompt for prompt, out in pairs if out > 1) * 62 * 576 * 2


def moved(result: Any, side: str) -> dict[str, float]:
    """Bytes of the NICs that move any, by node."""
    found: dict[str, float] = {}
    for name, link in result["links"].items():
        if "/nic" in name and name.endswith(side):
            node = name.split("/")[0]
            found[node] = found.get(node, 0.0) + link["bytes"]
    return found


def test_links_carry_the_kv_of_every_prompt_where_pools_are_apart(runs: dict[str, Any]) -> None:
    for side in ("/tx", "/rx"):
        assert sum(moved(runs["serving"], side).values()) == pytest.approx(kv_bytes(runs["serving"]))


@pytest.mark.slow
def test_kv_goes_from_the_nodes_of_prefill_to_those_of_decode_and_nowhere_where_one_pool_does_both() -> None:
    apart, together = example()["variants"].values()
    for side, nodes in (("/tx", range(4)), ("/rx", range(4, 8))):
        assert moved(apart, side).keys() == {f"node{node}" for node in nodes}
        assert sum(moved(apart, side).values()) == pytest.approx(kv_bytes(apart))
    assert not together["links"]


@pytest.mark.slow
def test_apart_no_prefill_stands_between_two_tokens() -> None:
    apart, together = (one["metrics"] for one in example()["variants"].values())
    assert apart["tpot"]["p99_s"] < 0.5 * together["tpot"]["p99_s"]
    assert apart["token_gap"]["max_s"] < 0.5 * together["token_gap"]["max_s"]
    assert 0 < apart["kv_transfer"]["p50_s"] < 0.02


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("workload.slo.ttft=2", "workload.slo.ttft: got 2; wanted a time with its unit"),
        ("workload.slo.tpot=0 s", "more than 0 s"),
        ("workload.prefill.ep=20", "whole nodes: a multiple of the 8 GPUs"),
        (
            "workload.prefill.layout={ep: 32}",
            "workload.prefill: got 'ep' next to 'layout'; wanted one of them",
        ),
        (
            "workload.decode={layout: {ep: 16, pp: 2}, plan: {overlap: true, kernel: {kind: low_latency}}}",
            "true next to layout.pp",
        ),
        ("workload.prefill.instances=9", "40 or more: the instances have 320 GPUs"),
        ("workload.arrivals.file=nowhere.csv", "a readable CSV of requests"),
        ("workload.decode.plan.kernel.kind=flut", "kernel.kind: got 'flut'; wanted one of: two_hop"),
        ("workload.decode.plan.context_tokens=5", "no such key in a plan"),
        ("workload.policy=random", "workload.policy"),
        (
            "workload.decode.plan.placement.redundant_experts=31",
            "workload.decode.ep: got 32; wanted a divisor",
        ),
        ("workload.decode.plan.acceptance=120 %", "workload.decode.plan.acceptance: got 120%"),
    ],
)
def test_bad_serving_input_says_where_got_and_wanted(setting: str, told: str) -> None:
    document = scenario_settings.read("serving-example", [setting])
    with pytest.raises(InputError) as caught:
        run.run_document(document)
    assert told in str(caught.value)
    assert len(set(caught.value.problems)) == len(caught.value.problems)


def test_a_deployment_whose_weights_do_not_fit_is_infeasible_with_its_reason() -> None:
    document = scenario_settings.read("serving-example", ["workload.decode.ep=8", "workload.prefill.ep=8"])
    with pytest.raises(InfeasibleError, match="GPU"):
        run.run_document(document)


def test_a_request_that_no_gpu_could_hold_is_infeasible(tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    file.write_text("arrival_s,prompt_tokens,output_tokens\n0,900000,100000\n")
    with pytest.raises(InfeasibleError, match=r"holds no request|no request fits|fit"):
        run.run_document(scenario_settings.read("serving-example", [f"workload.arrivals.file={file}"]))
