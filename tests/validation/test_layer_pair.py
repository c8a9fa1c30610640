"""The overlapped layer pair of DeepSeek-V3 on H800: the published trace beside the same pair in the engine."""

from __future__ import annotations

from functools import cache

import pytest

from figures import by_id
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings
from sim.validation.layer_pair import PairTimes, simulate

pytestmark = pytest.mark.xdist_group("published")

PHASES = ("attn(F)", "mlp(B)", "mlp(W)", "mlp(F)", "attn(B)", "attn(W)")
EXCHANGES = ("combine(B)", "dispatch(F)", "dispatch(B)", "combine(F)")


def error(name: str) -> float:
    return abs(float(by_id("layer_pair")[name]["error_fraction"]))


@cache
def pair(spread: str = "1.5 %", other: str = "", layers: int = 4) -> PairTimes:
    settings = (f"workload.skew.gpu_spread={spread}", *((other,) if other else ()))
    one = scenarios.resolve(scenario_settings.read("v3-training-h800", settings))
    return simulate(one, num_layers=layers, num_groups=24)


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["modelled", "measured"])
def test_four_layers_take_the_published_129_ms_within_4_percent(compute: str) -> None:
    assert error(f"{compute}.span") <= 0.04


@pytest.mark.slow
@pytest.mark.parametrize("name", PHASES)
def test_each_phase_is_within_8_percent(name: str) -> None:
    assert error(f"modelled.{name}") <= 0.08
    assert by_id("layer_pair")[f"modelled.{name}"]["use"] == "validation"


@pytest.mark.slow
@pytest.mark.parametrize("name", EXCHANGES)
def test_each_exchange_without_its_barrier_is_within_15_percent(name: str) -> None:
    assert error(f"modelled.{name}") <= 0.15


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["modelled", "measured"])
def test_what_a_profiler_counts_as_exposed_is_within_25_percent(compute: str) -> None:
    """And its error is of the exposure, as every other."""
    row = by_id("layer_pair")[f"{compute}.exposed"]
    assert row["error_fraction"] == pytest.approx(row["simulated"] / row["published"] - 1)
    assert abs(row["error_fraction"]) <= 0.25


@pytest.mark.slow
def test_gaps_between_launches_are_those_of_the_trace_within_a_tenth() -> None:
    """909 gaps of 1.38 ms in all; ours has a few launches fewer, and each leaves one."""
    assert pair().gaps_s == pytest.approx(1.38e-3, rel=0.1)
    shown = pair().quantities()
    idle = 1 - shown["busy_fraction"]["compute"]
    assert pair().exposed_s < shown["exposed_comm_fraction"]["exposed"] * pair().span_s < idle * pair().span_s


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["modelled", "measured"])
def test_compute_waits_as_long_as_the_gaps_of_the_trace_that_are_no_gaps_between_launches(
    compute: str,
) -> None:
    """4.18 ms of 129.01 are exposed, 1.38 of them in 909 gaps of less than 20 us, which are in the times of phases."""
    row = by_id("layer_pair")[f"{compute}.waited"]
    assert row["published"] == pytest.approx((4.18 - 1.38) / 129.01, rel=2e-3)
    assert abs(row["error_fraction"]) <= 0.25


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["modelled", "measured"])
def test_waiting_at_barriers_is_skew_and_adds_up_to_that_of_the_trace(compute: str) -> None:
    """31 ms of 16 notify kernels (32.6 with the kernels themselves), growing from layer to layer."""
    waits = [by_id("layer_pair")[f"{compute}.wait-{layer}"] for layer in range(1, 5)]
    assert sum(row["simulated"] for row in waits) == pytest.approx(31e-3, rel=0.15)
    assert waits[0]["simulated"] < 0.5 * waits[3]["simulated"]


def test_ranks_that_are_alike_never_wait() -> None:
    skew = "workload.skew={routed_load: 0, kernel_jitter: 0, gpu_spread: 0}"
    even = pair("0", skew)
    assert even.waits_s == (0, 0, 0, 0)
    assert even.exposed_s == 0
    assert even.span_s == pytest.approx(4 * sum(even.phases_s.values()), rel=1e-9)


@pytest.mark.slow
def test_a_wider_spread_of_gpus_makes_the_pair_longer_and_its_barriers_too() -> None:
    spans = [pair(spread).span_s for spread in ("0", "1.5 %", "3 %")]
    waits = [sum(pair(spread).waits_s) for spread in ("0", "1.5 %", "3 %")]
    assert spans == sorted(spans)
    assert waits == sorted(waits)
    assert spans[2] < 1.06 * spans[0]


@pytest.mark.slow
def test_means_say_the_same_with_other_draws() -> None:
    other = pair(other="seed=1")
    assert other.span_s == pytest.approx(pair().span_s, rel=0.005)
    assert sum(other.waits_s) == pytest.approx(sum(pair().waits_s), rel=0.05)
