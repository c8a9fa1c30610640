"""The serving loop agrees with queueing theory, loses nobody, keeps to its memory, and repeats itself to the last digit."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.engine.serving import ServingTrace, serve
from sim.engine.transfers import Transfers, fair_rates
from sim.errors import InfeasibleError, InputError
from sim.runs import run
from sim.runs.serving import measure, token_instants_s
from sim.scenario import settings as scenario_settings
from sim.schedule.serving import (
    POLICIES,
    Pool,
    Room,
    Service,
    Waiting,
    fcfs,
    first_fit,
    least_loaded,
    shortest_first,
)
from sim.workload.requests import Lengths, Requests, poisson

ONE = Lengths("fixed", 1)


def requests(rows: list[tuple[float, int, int]]) -> Requests:
    arrival, prompt, output = zip(*rows, strict=True)
    return Requests(np.array(arrival, dtype=float), np.array(prompt), np.array(output))


def service(**changes: object) -> Service:
    """1 ms a prompt token, 10 ms a decode step, one byte of KV a token, no limit."""
    plain = Service(
        prefill=Pool(1, math.inf),
        decode=Pool(1, math.inf),
        prefill_s=lambda tokens: 1e-3 * tokens,
        decode_step_s=lambda requests, context: 1e-2,
        kv_bytes_per_token=1.0,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


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


@pytest.mark.parametrize(("servers", "fraction"), [(1, 0.5), (1, 0.7), (2, 0.7), (4, 0.8)])
def test_prefill_without_batches_waits_as_long_as_m_m_c(servers: int, fraction: float) -> None:
    def draw(rng: np.random.Generator) -> Requests:
        return poisson(8000, servers * fraction, Lengths("exponential", 100_000), ONE, rng)

    here = service(prefill=Pool(servers, math.inf), prefill_s=lambda tokens: tokens / 1e5, batch_requests=1)
    theory = erlang_c(servers, servers * fraction) / (servers * (1 - fraction))
    assert_agrees(waits_of_seeds(here, draw, "arrival_s", "prefill_start_s"), theory, 0.08)


@pytest.mark.parametrize(("servers", "fraction"), [(1, 0.6), (3, 0.7)])
def test_decode_of_one_request_at_a_time_waits_as_long_as_m_m_c(servers: int, fraction: float) -> None:
    """A geometric count of steps: 1 / p in the mean, squared variation 1 - p, which scales the wait by 1 - p / 2."""
    p = 0.05
    mean_s = 1e-2 / p

    def draw(rng: np.random.Generator) -> Requests:
        drawn = poisson(2000, servers * fraction / mean_s, ONE, ONE, rng)
        return replace(drawn, output_tokens=1 + rng.geometric(p, 2000))

    here = service(prefill_s=lambda tokens: 0.0, decode=Pool(servers, math.inf), max_batch=1)
    theory = erlang_c(servers, servers * fraction) / (servers * (1 - fraction)) * mean_s * (1 - p / 2)
    assert_agrees(waits_of_seeds(here, draw, "first_token_s", "decode_start_s"), theory, 0.2)


def test_decode_with_room_for_all_is_m_g_infinity() -> None:
    asked = poisson(5000, 10.0, ONE, Lengths("exponential", 100), np.random.default_rng(0))
    found = serve(service(prefill_s=lambda tokens: 0.0), asked)
    steps = found.decode[0]
    busy = np.sum(steps.step_requests * (steps.step_end_s - steps.step_start_s)) / asked.arrival_s[-1]
    assert busy == pytest.approx(10.0 * 0.99, rel=0.05)  # Little: rate x 99 steps of 10 ms


# --- one request, by hand ------------------------------------------------------------------------------------------


def test_the_instants_of_one_request_are_sums_of_its_parts() -> None:
    here = service(prefill=Pool(1, math.inf, 1e3), decode=Pool(1, math.inf, 1e3), transfer_latency_s=0.25)
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
    found = serve(service(tokens_per_step=1.7), requests([(0.0, 1, 18), (0.0, 1, 1)]))
    assert len(found.decode[0].step_end_s) == 10
    assert found.instants["end_s"][1] == found.instants["first_token_s"][1]
    assert found.decode_instance.tolist() == [0, -1]


def test_a_long_prompt_goes_in_chunks_and_a_cached_part_is_not_computed() -> None:
    here = service(prefill_s=lambda tokens: 1.0 + 1e-3 * tokens, batch_tokens=100, cached_fraction=0.5)
    found = serve(here, requests([(0.0, 500, 1)]))
    assert found.instants["end_s"][0] == pytest.approx(3 * 1.0 + 0.25)


def test_prompts_spread_over_the_ranks_of_an_instance_and_the_longest_sets_the_time() -> None:
    here = service(prefill=Pool(1, math.inf, num_ranks=4))
    found = serve(here, requests([(0.0, 50, 1), (0.06, 100, 1), (0.06, 40, 1), (0.06, 40, 1)]))
    assert found.instants["first_token_s"] == pytest.approx([0.05, 0.16, 0.16, 0.16])


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


def test_two_transfers_into_one_instance_each_get_half() -> None:
    here = service(prefill=Pool(2, math.inf, 1e3), decode=Pool(1, math.inf, 1e3), batch_requests=1)
    found = serve(here, requests([(0.0, 100, 2), (0.0, 100, 2)])).instants
    assert found["kv_arrived_s"] - found["first_token_s"] == pytest.approx([0.2, 0.2])


def test_a_transfer_gets_what_the_exchanges_of_a_running_instance_leave() -> None:
    pool = Pool(1, math.inf, 1e3, nic_busy_fraction=0.75)
    here = service(prefill=Pool(1, math.inf), decode=pool, prefill_s=lambda tokens: 0.0)
    found = serve(here, requests([(0.0, 10, 1001), (5.0, 100, 2)])).instants
    assert found["kv_arrived_s"][0] == pytest.approx(0.01)  # nothing runs yet
    assert found["kv_arrived_s"][1] - 5.0 == pytest.approx(0.4)


def test_fair_rates_give_every_transfer_the_share_of_its_narrowest_end() -> None:
    send, receive = {0: 90.0, 1: 90.0}, {0: 60.0, 1: 1000.0}
    rates = fair_rates({(0, 0): 2, (1, 0): 1, (0, 1): 1}, send, receive, 45.0)
    assert rates == pytest.approx({(0, 0): 20.0, (1, 0): 20.0, (0, 1): 45.0})


PAIRS = st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.integers(1, 5), min_size=1)
RATES = st.lists(st.floats(1.0, 100.0), min_size=4, max_size=4)


@given(PAIRS, RATES, RATES, st.floats(1.0, 50.0))
@settings(max_examples=60, deadline=None)
def test_fair_rates_exceed_no_end_and_leave_no_transfer_room_to_grow(
    count: dict[tuple[int, int], int], send: list[float], receive: list[float], most: float
) -> None:
    rates = fair_rates(count, dict(enumerate(send)), dict(enumerate(receive)), most)
    ends = [("send", i, rate) for i, rate in enumerate(send)] + [
        ("receive", i, r) for i, r in enumerate(receive)
    ]
    used = {
        (side, i): sum(rates[p] * n for p, n in count.items() if p[0 if side == "send" else 1] == i)
        for side, i, _ in ends
    }
    full = {(side, i) for side, i, rate in ends if used[side, i] >= rate * (1 - 1e-9)}
    assert all(used[side, i] <= rate * (1 + 1e-9) for side, i, rate in ends)
    for (i, j), rate in rates.items():
        assert rate <= most * (1 + 1e-9)
        assert rate >= most * (1 - 1e-9) or ("send", i) in full or ("receive", j) in full


@given(
    st.lists(
        st.tuples(st.floats(0, 2), st.integers(0, 1), st.integers(0, 1), st.floats(1, 50)),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=40, deadline=None)
def test_every_byte_arrives_and_none_before_its_rate_allows(
    sent: list[tuple[float, int, int, float]],
) -> None:
    env = simpy.Environment()
    here = Transfers(env, {0: 20.0, 1: 30.0}, {0: 25.0, 1: 10.0}, most_bytes_per_s=15.0, latency_s=0.0)
    ended: dict[int, float] = {}

    def one(number: int, start: float, i: int, j: int, size: float):  # type: ignore[no-untyped-def]
        yield env.timeout(start)
        yield here.send(i, j, size)
        ended[number] = env.now

    for number, row in enumerate(sent):
        env.process(one(number, *row))
    env.run()
    assert len(ended) == len(sent)
    for number, (start, _, j, size) in enumerate(sent):
        assert ended[number] - start >= size / min(15.0, (25.0, 10.0)[j]) * (1 - 1e-9)
    for j, rate in ((0, 25.0), (1, 10.0)):
        mine = [number for number, row in enumerate(sent) if row[2] == j]
        if mine:
            span = max(ended[n] for n in mine) - min(sent[n][0] for n in mine)
            assert sum(sent[n][3] for n in mine) <= rate * span * (1 + 1e-9)


# --- policies ------------------------------------------------------------------------------------------------------

QUEUE = [Waiting(0, 30, 30), Waiting(1, 80, 80), Waiting(2, 10, 10), Waiting(3, 20, 20)]


def test_policies_differ_in_who_passes_whom() -> None:
    room = Room(10, 100, 60)
    assert fcfs(QUEUE, room) == [0]
    assert first_fit(QUEUE, room) == [0, 2, 3]
    assert shortest_first(QUEUE, room) == [2, 3, 0]


def test_a_prompt_larger_than_a_batch_goes_alone() -> None:
    assert fcfs(QUEUE[1:], Room(10, 50, 1000)) == [0]


def test_the_least_loaded_instance_with_room_is_chosen_and_ties_go_to_the_lower_index() -> None:
    assert least_loaded([1, 2, 2], [50, 50, 50], 10) == 1
    assert least_loaded([1, 2, 2], [50, 5, 50], 10) == 2
    assert least_loaded([0, 0, 1], [50, 50, 5], 10) is None


WAITING = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=12)


@given(WAITING, st.integers(0, 5), st.integers(1, 80), st.integers(0, 80), st.sampled_from(sorted(POLICIES)))
@settings(max_examples=100, deadline=None)
def test_no_policy_takes_more_than_there_is_room_for(
    sizes: list[tuple[int, int]], most: int, tokens: int, kv: int, name: str
) -> None:
    queue = [Waiting(i, *size) for i, size in enumerate(sizes)]
    taken = POLICIES[name](queue, Room(most, tokens, kv))
    assert len(set(taken)) == len(taken) <= most
    assert sum(queue[i].kv_tokens for i in taken) <= kv
    assert len(taken) <= 1 or sum(queue[i].batch_tokens for i in taken) <= tokens


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
        prefill=Pool(prefill, memory, 5e3, 0.5),
        decode=Pool(decode, memory, 5e3, 0.5) if decode else None,
        batch_tokens=64,
        max_batch=batch,
        policy=policy,
        tokens_per_step=1.5,
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
    steps = np.array([here.steps(int(tokens)) for tokens in asked.output_tokens])
    assert ((at["end_s"] - at["decode_start_s"] - 1e-2 * steps)[decoded] >= -1e-9).all()
    if policy == "fcfs":
        assert (np.diff(at["prefill_start_s"][kept]) >= 0).all()
    for one in found.prefill + found.decode:
        assert one.peak_kv_tokens <= one.kv_capacity_tokens
        assert (one.step_requests <= batch).all()
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
from sim.schedule.serving import Pool, Service
from sim.workload.requests import Lengths, poisson
here = Service(Pool(3, 4e4, 1e5, .3), Pool(2, 5e4, 1e5, .3), lambda t: 1e-5 * t, lambda n, c: 5e-3 + 1e-4 * n, 1.0,
               batch_tokens=2000, max_batch=32, transfer_bytes_per_s=5e4, transfer_latency_s=1e-3)
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
    here = service(prefill=Pool(1, 1e4), decode=Pool(1, 1e4), batch_requests=1, max_batch=1)
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


def test_tokens_come_with_the_steps_that_make_them() -> None:
    here = service(tokens_per_step=2.0)
    asked = requests([(0.0, 100, 6)])
    tokens = token_instants_s(serve(here, asked), here, asked, 0)
    assert tokens == pytest.approx([0.1, 0.11, 0.11, 0.12, 0.12, 0.13])


# --- scenarios -----------------------------------------------------------------------------------------------------


@cache
def example() -> Any:
    return sim.run("serving-example")


def test_the_example_ends_every_request_and_no_ttft_is_below_that_of_an_empty_house() -> None:
    for one in example()["variants"].values():
        found = one["metrics"]
        assert found["num_ended"] == 400
        for key in ("mean_s", "p50_s", "p99_s"):
            assert found["ttft"][key] >= found["ttft_alone"][key]


def test_the_example_says_that_apart_waits_for_prefill_and_together_for_decode() -> None:
    """Prefill of one instance cannot keep up with 42 prompts a second; two that also decode put prompts first."""
    said = " ".join(example().finding())
    assert "for prefill in apart" in said
    assert "for decode in together" in said


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
            "workload.decode={layout: {ep: 16, pp: 2}, plan: {kernel: {kind: low_latency}}}",
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
